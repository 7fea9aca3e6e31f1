//! What the handlers share.

use std::collections::HashMap;
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
    sizes: HashMap<String, Size>,
}

/// How large the clones of a template are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) vcpus: u32,
    pub(super) memory_mib: u64,
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
        let size = |plan: &TemplatePlan| Size {
            vcpus: plan.spec.vcpus,
            memory_mib: plan.spec.memory_mib,
        };
        let sizes = plans
            .iter()
            .map(|plan| (plan.spec.name.clone(), size(plan)))
            .collect();
        Self(Arc::new(Inner {
            cache,
            metrics,
            stopping,
            sizes,
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

    /// The size of a template's clones; `None` when there is no such template.
    pub(super) fn size(&self, template: &str) -> Option<Size> {
        self.0.sizes.get(template).copied()
    }
}
