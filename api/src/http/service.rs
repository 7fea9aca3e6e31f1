//! What the handlers share.

use std::collections::HashSet;
use std::sync::Arc;

use vmint_cache::{Cache, TemplatePlan};

use super::stopping::Stopping;
use crate::telemetry::Metrics;

/// The service behind the API. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    cache: Cache,
    metrics: Arc<Metrics>,
    stopping: Stopping,
    templates: HashSet<String>,
}

impl Service {
    /// A service over a cache that was started with these plans.
    #[must_use]
    pub fn new(
        cache: Cache,
        metrics: Arc<Metrics>,
        stopping: Stopping,
        plans: &[TemplatePlan],
    ) -> Self {
        let templates = plans.iter().map(|plan| plan.spec.name.clone()).collect();
        Self(Arc::new(Inner {
            cache,
            metrics,
            stopping,
            templates,
        }))
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    pub(super) fn stopping(&self) -> &Stopping {
        &self.0.stopping
    }

    /// Whether there is such a template.
    pub(super) fn has_template(&self, name: &str) -> bool {
        self.0.templates.contains(name)
    }
}
