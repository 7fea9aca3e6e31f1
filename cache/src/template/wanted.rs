//! What is wanted of a template, for as long as it is wanted at all.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vmint_factory::{MachineType, TemplateSpec};

use super::status::{Errand, Status, described};
use crate::spec::OnStale;
use crate::sync::lock;

impl Status {
    /// Something else is wanted from now on. Where the current generation differs from it, it is stale; a build that runs
    /// makes what is not wanted any more, and begins anew.
    pub(crate) fn want(&self, spec: TemplateSpec, on_stale: OnStale) {
        let spec = Arc::new(spec);
        let mut inner = lock(&self.inner);
        inner.on_stale = on_stale;
        inner.is_pinned = false;
        if **self.spec.borrow() != *spec {
            // What the descriptions tell is known at once, and what the files tell when the keeper has looked.
            if let Some(made_of) = &inner.made_of {
                inner.staleness = described(made_of, &spec);
            }
            inner.is_outdated = inner.build.is_some();
            inner.retry_at = None;
            self.spec.send_replace(spec);
        }
        inner.errands.push_back(Errand::Look);
        self.changed.notify_one();
    }

    /// What machine its clones are: those of the current generation, where there is one.
    pub(crate) fn machine(&self) -> MachineType {
        let inner = lock(&self.inner);
        let made_of = inner.made_of.as_ref();
        made_of.map_or_else(|| self.spec.borrow().machine, |spec| spec.machine)
    }

    /// The template is no more: its keeper leaves.
    pub(crate) fn remove(&self) {
        lock(&self.inner).stops = true;
        self.removed.cancel();
    }

    /// Cancelled once the template is no more.
    pub(super) fn removed(&self) -> &CancellationToken {
        &self.removed
    }

    /// Cancelled once its keeper has left: it touches nothing on disk any more.
    pub(crate) fn left(&self) -> &CancellationToken {
        &self.left
    }

    /// What is wanted now.
    pub(super) fn spec(&self) -> Arc<TemplateSpec> {
        Arc::clone(&self.spec.borrow())
    }

    /// What is wanted now, and word of it when something else is. What is begun with it is up to date.
    pub(super) fn wanted(&self) -> (Arc<TemplateSpec>, watch::Receiver<Arc<TemplateSpec>>) {
        let mut inner = lock(&self.inner);
        inner.is_outdated = false;
        let later = self.spec.subscribe();
        let now = Arc::clone(&later.borrow());
        (now, later)
    }
}
