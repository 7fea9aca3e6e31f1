//! What the handlers share.

use std::sync::Arc;

use nix::unistd::Gid;
use vmint_cache::Cache;

use super::budget::BodyBudget;
use super::stopping::Stopping;
use super::users::Users;
use crate::reload::Reloader;
use crate::telemetry::Metrics;

/// The service behind the API. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    cache: Cache,
    metrics: Arc<Metrics>,
    stopping: Stopping,
    reloader: Arc<Reloader>,
    bodies: BodyBudget,
    users: Users,
    /// Whether a machine of ours could be told apart from other clients if it came to the TCP listener.
    knows_machines: bool,
}

impl Service {
    /// A service over a cache, whose configuration can be read again.
    #[must_use]
    pub fn new(
        cache: Cache,
        metrics: Arc<Metrics>,
        stopping: Stopping,
        reloader: Arc<Reloader>,
    ) -> Self {
        Self(Arc::new(Inner {
            cache,
            metrics,
            stopping,
            reloader,
            bodies: BodyBudget::default(),
            users: Users::new(None),
            knows_machines: true,
        }))
    }

    /// The same, which members of a group of the host may use over TCP, too.
    #[must_use]
    pub fn for_group(mut self, group: Option<Gid>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.users = Users::new(group);
        }
        self
    }

    /// The same, where QEMU runs as the very user that may use the service over TCP: its `user` networks would let guests in.
    #[must_use]
    pub fn without_user_networks(mut self) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.knows_machines = false;
        }
        self
    }

    pub(super) fn knows_machines(&self) -> bool {
        self.0.knows_machines
    }

    pub(super) fn users(&self) -> &Users {
        &self.0.users
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
        self.0.cache.has_template(name)
    }

    pub(super) fn bodies(&self) -> &BodyBudget {
        &self.0.bodies
    }

    pub(super) fn reloader(&self) -> &Arc<Reloader> {
        &self.0.reloader
    }
}
