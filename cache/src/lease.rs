//! The guard between a checkout and its answer.

use std::fmt;

use crate::events::{Events, Happening};
use crate::pool::Grant;
use crate::repeats::Claim;
use crate::view::SandboxView;

/// A sandbox that was checked out, but not yet handed over: nobody can find it by its id.
///
/// Dropped, it gives the clone back: to the pool when nothing in it was changed, else it is ended (a hostname was set,
/// or the clone stood by paused and was resumed).
#[must_use = "a dropped lease gives the clone back"]
pub struct Lease {
    /// In a box: what is large is moved often on its way to the answer.
    view: Box<SandboxView>,
    grant: Grant,
    claim: Option<Claim>,
    events: Option<Events>,
}

impl Lease {
    pub(crate) fn new(view: SandboxView, grant: Grant) -> Self {
        Self {
            view: Box::new(view),
            grant,
            claim: None,
            events: None,
        }
    }

    /// The key of the request that it is for: once it is handed over, the same request gets the same answer.
    pub(crate) fn named_by(self, claim: Claim) -> Self {
        let claim = Some(claim);
        Self { claim, ..self }
    }

    /// Who is told when it is handed over.
    pub(crate) fn told_to(self, events: &Events) -> Self {
        let events = Some(events.clone());
        Self { events, ..self }
    }

    /// The sandbox.
    #[must_use]
    pub fn view(&self) -> &SandboxView {
        &self.view
    }

    /// Hands it over: from now on only a release, the end of the lease or its death ends it.
    pub fn commit(self) -> SandboxView {
        let Self {
            view,
            grant,
            claim,
            events,
        } = self;
        let view = *view;
        // The key before the hand-over: a sandbox that ends from then on finds it.
        let sandbox = grant.sandbox();
        if let Some(claim) = claim {
            let repeats = claim.keep(view.clone());
            if sandbox.is_over() {
                repeats.ended(&view.id);
            }
        }
        grant.commit(view.clone());
        if let Some(events) = events {
            let what = Happening::Checkout {
                sandbox: view.id.clone(),
                owner_uid: view.owner_uid,
                source: view.source,
                took: view.checkout,
            };
            events.tell(&view.template, what);
        }
        view
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}
