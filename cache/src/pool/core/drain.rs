//! Draining: no checkouts, no unused clones, nothing new; leased ones live until their end. It can be undone.

use super::event::{Drain, Effect, Refusal};
use super::machine::{Core, Course};

/// What is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drains {
    pool: bool,
    node: bool,
}

impl Drains {
    pub(super) fn set(&mut self, whose: Drain, drains: bool) {
        match whose {
            Drain::Pool => self.pool = drains,
            Drain::Node => self.node = drains,
        }
    }
}

impl Core {
    /// Whether the pool drains, for whatever reason.
    pub(crate) fn is_draining(&self) -> bool {
        self.drains.pool || self.drains.node
    }

    /// Whether it drains, and nothing of it is left.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_draining() && self.roster.is_empty()
    }

    pub(super) fn drain(&mut self, whose: Drain, effects: &mut Vec<Effect>) {
        self.drains.set(whose, true);
        self.refuse_waiters(Refusal::Draining, effects);
        self.abandon_launches(|_| true, effects);
    }

    /// Clones to keep ready now.
    pub(super) fn target(&self) -> usize {
        if self.is_draining() || self.course == Course::Withdrawn {
            0
        } else {
            self.limits.target
        }
    }
}
