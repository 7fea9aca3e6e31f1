//! The guard between a checkout and its answer.

use std::fmt;

use crate::pool::Grant;
use crate::view::SandboxView;

/// A sandbox that was checked out, but not yet handed over: nobody can find it by its id.
///
/// Dropped, it gives the clone back: to the pool when nothing in it was changed, else it is ended (a hostname was set,
/// or the clone stood by paused and was resumed).
#[must_use = "a dropped lease gives the clone back"]
pub struct Lease {
    view: SandboxView,
    grant: Grant,
}

impl Lease {
    pub(crate) fn new(view: SandboxView, grant: Grant) -> Self {
        Self { view, grant }
    }

    /// The sandbox.
    #[must_use]
    pub fn view(&self) -> &SandboxView {
        &self.view
    }

    /// Hands it over: from now on only a release, the end of the lease or its death ends it.
    pub fn commit(self) -> SandboxView {
        self.grant.commit(self.view.clone());
        self.view
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}
