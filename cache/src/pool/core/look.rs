//! What can be seen of a pool, and when it must be woken.

use std::time::Duration;

use super::ids::{CloneKey, Moment};
use super::machine::{Core, Course, Limits};
use super::roster::{Slot, State, Tally};

impl Core {
    /// When `on` must be called again at the latest, if nothing happens before.
    pub(crate) fn next_wake(&self) -> Option<Moment> {
        let others = [
            self.roster.index().next_due().map(|(at, _)| at),
            self.next_question().map(|(at, _)| at),
            self.queue.next_deadline(),
            self.health.pause_ends(self.now),
            self.room.pause_ends(self.now),
            self.roll_wakes(),
        ];
        others.into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(crate) fn check_index(&self) {
        assert_eq!(*self.roster.index(), self.roster.reindexed());
    }

    /// The sizes that hold now.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many clones there are of each kind.
    pub(crate) fn tally(&self) -> Tally {
        self.roster.index().tally()
    }

    /// All living clones, oldest first.
    pub(crate) fn clones(&self) -> impl Iterator<Item = (CloneKey, &Slot)> {
        self.roster.iter()
    }

    /// The clones that are gone since this was asked last.
    pub(crate) fn take_gone(&mut self) -> Vec<CloneKey> {
        self.roster.take_gone()
    }

    /// One living clone.
    pub(crate) fn clone_state(&self, clone: CloneKey) -> Option<State> {
        self.roster.get(clone).map(|slot| slot.state)
    }

    /// How many checkouts wait.
    pub(crate) fn waiters(&self) -> usize {
        self.queue.len()
    }

    /// Checkouts that found a ready clone, and those that found none.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// Why clones cannot be made at present.
    pub(crate) fn degraded(&self) -> Option<&str> {
        self.health.degraded()
    }

    /// Whether the pool ever had as many clones as it is to keep.
    pub(crate) fn was_filled(&self) -> bool {
        self.was_filled
    }

    /// How long launches pause yet after a failure.
    pub(crate) fn pause(&self) -> Duration {
        self.health
            .pause_ends(self.now)
            .map_or(Duration::ZERO, |end| end.since(self.now))
    }

    /// Whether it was stopped or withdrawn, and everything has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.course >= Course::Withdrawn && self.roster.is_empty()
    }
}
