//! What the handlers share.

use std::sync::Arc;

use nix::unistd::Gid;
use vmint_cache::Cache;

use super::budget::BodyBudget;
use super::scrapes::Scrapes;
use super::stopping::Stopping;
use super::users::Users;
use crate::reload::Reloader;
use crate::telemetry::Metrics;

/// What is decided of a service when it starts.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// A group of the host whose members may use the service over TCP, too.
    pub group: Option<Gid>,
    /// Whether sandboxes may have a network of QEMU's own: not where it would let their guests in as a user of the service.
    pub user_networks: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            group: None,
            user_networks: true,
        }
    }
}

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
    user_networks: bool,
    scrapes: Scrapes,
}

impl Service {
    /// A service over a cache, whose configuration can be read again.
    #[must_use]
    pub fn new(
        cache: Cache,
        metrics: Arc<Metrics>,
        stopping: Stopping,
        reloader: Arc<Reloader>,
        terms: Terms,
    ) -> Self {
        Self(Arc::new(Inner {
            cache,
            metrics,
            stopping,
            reloader,
            bodies: BodyBudget::default(),
            users: Users::new(terms.group),
            user_networks: terms.user_networks,
            scrapes: Scrapes::default(),
        }))
    }

    pub(super) fn has_user_networks(&self) -> bool {
        self.0.user_networks
    }

    pub(super) fn scrapes(&self) -> &Scrapes {
        &self.0.scrapes
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
