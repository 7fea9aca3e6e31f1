//! The guard between a checkout and its answer.

use crate::view::SandboxView;

/// A sandbox that was checked out, but not yet handed over.
#[derive(Debug)]
pub struct Lease {
    view: SandboxView,
}

impl Lease {
    /// The sandbox.
    #[must_use]
    pub fn view(&self) -> &SandboxView {
        &self.view
    }

    /// Hands it over: from now on only a release, the end of the lease or its death ends it.
    #[must_use]
    pub fn commit(self) -> SandboxView {
        self.view
    }
}
