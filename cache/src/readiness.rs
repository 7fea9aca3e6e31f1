//! Whether the service can do its work, and why not.
//!
//! Ready once every template has a generation and its pool was filled; no longer while a pool is degraded with nothing
//! ready or drained, or a template is stale and must not be; and not again after the stop has begun. A template that was
//! added makes it wait once more.

use std::sync::Arc;

use crate::entry::Template;
use crate::view::Readiness;

/// What is answered once the stop has begun.
pub(crate) fn stopping() -> Readiness {
    Readiness {
        ready: false,
        reasons: vec!["the service is stopping".to_owned()],
    }
}

/// What is answered while the whole node drains.
pub(crate) fn draining() -> Readiness {
    Readiness {
        ready: false,
        reasons: vec!["the service is being drained".to_owned()],
    }
}

/// The sum over all templates.
pub(crate) fn of(templates: &[Arc<Template>]) -> Readiness {
    let reasons: Vec<String> = templates
        .iter()
        .filter_map(|template| why_not(template))
        .collect();
    Readiness {
        ready: reasons.is_empty(),
        reasons,
    }
}

fn why_not(template: &Template) -> Option<String> {
    let (status, pool) = (&template.status, &template.pool);
    let name = status.name();
    let snapshot = status.snapshot();
    if let Some(reason) = snapshot.unavailable().or_else(|| snapshot.refused()) {
        return Some(format!("template {name}: {reason}"));
    }
    let level = pool.level();
    if level.draining {
        return Some(format!("pool {name}: it is drained"));
    }
    match level.degraded {
        Some(reason) if level.ready == 0 => Some(format!("pool {name}: {reason}")),
        Some(_) | None if level.was_filled => None,
        Some(_) | None => Some(format!(
            "pool {name}: {} of {} clones are ready",
            level.ready, level.target
        )),
    }
}
