//! The living clones of a pool, each with its state.
//!
//! ```text
//!              Launched            grant              Released, expired, died
//!  Launching ----------> Ready ------------> Leased ---------------------------> Releasing ----> (gone)
//!      |                   ^    Returned       |                                    ^    Ended
//!      | LaunchFailed      +-------------------+                                    |
//!      v                   |                                                        |
//!    (gone)                +--- died, silent, stalled, too old, surplus, old  --------+
//! ```
//!
//! A clone is counted from the order to make it until its process is gone: that is what `max` bounds.

use std::collections::BTreeMap;

use super::ids::{CloneKey, Epoch, Moment};
use super::index::{Index, Rules};
use super::pulse::Pulse;

/// One living clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// What it is, or will be, a clone of.
    pub epoch: Epoch,
    /// When it was ordered.
    pub begun: Moment,
    /// When it has been unused for too long; known once it is ready.
    pub best_before: Option<Moment>,
    /// Whether that moment has come.
    pub is_aged: bool,
    /// Whether it was ordered with settings of the pool that hold no longer.
    pub is_outdated: bool,
    /// Whether its guest cannot be asked: its agent is of a version that cannot be talked to.
    pub is_mute: bool,
    /// What is known of its guest's answers.
    pub pulse: Pulse,
    /// Where it is in its life.
    pub state: State,
}

/// Where a clone is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Being made.
    Launching,
    /// Proved and unused.
    Ready,
    /// Granted, until the lease ends.
    Leased { expires: Option<Moment> },
    /// Being ended.
    Releasing,
}

impl Slot {
    /// Whether it is ready, but to be replaced: it is too old, of an older generation, or made with other settings.
    pub(super) fn is_stale(&self, current: Option<Epoch>) -> bool {
        self.is_outdated || self.is_aged || current.is_some_and(|epoch| epoch != self.epoch)
    }

    /// Whether it is leased, and its guest has left questions unanswered for too long.
    pub(super) fn is_unresponsive(&self) -> bool {
        matches!(self.state, State::Leased { .. }) && self.pulse.unresponsive_at.is_some()
    }
}

/// How many clones there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Being made, of the current generation.
    pub launching: usize,
    /// Being made, of an older generation.
    pub launching_old: usize,
    /// Ready, and to be kept.
    pub fresh: usize,
    /// Ready, and to be replaced.
    pub stale: usize,
    /// Leased.
    pub leased: usize,
    /// Those of them whose guest does not answer.
    pub unresponsive: usize,
    /// Being ended.
    pub releasing: usize,
}

impl Tally {
    /// All that can be granted.
    pub(crate) fn ready(&self) -> usize {
        self.fresh + self.stale
    }

    /// All that are being made.
    pub(crate) fn in_flight(&self) -> usize {
        self.launching + self.launching_old
    }

    /// All that are not on their way out.
    pub(crate) fn staying(&self) -> usize {
        self.in_flight() + self.ready() + self.leased
    }

    /// All of them.
    pub(crate) fn alive(&self) -> usize {
        self.staying() + self.releasing
    }
}

/// All living clones. Each change of one goes through here, so that the index is always up to date.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    slots: BTreeMap<CloneKey, Slot>,
    rules: Rules,
    index: Index,
    gone: Vec<CloneKey>,
    next_key: u64,
}

impl Roster {
    /// Adds a clone that is being made.
    pub(crate) fn begin(&mut self, now: Moment, epoch: Epoch) -> CloneKey {
        let key = CloneKey(self.next_key);
        self.next_key += 1;
        let slot = Slot {
            epoch,
            begun: now,
            best_before: None,
            is_aged: false,
            is_outdated: false,
            is_mute: false,
            pulse: Pulse::default(),
            state: State::Launching,
        };
        self.index.enter(key, &slot, &self.rules);
        self.slots.insert(key, slot);
        key
    }

    /// One clone.
    pub(crate) fn get(&self, clone: CloneKey) -> Option<&Slot> {
        self.slots.get(&clone)
    }

    /// Changes one clone; `None` where it is gone.
    pub(crate) fn update<T>(
        &mut self,
        clone: CloneKey,
        change: impl FnOnce(&mut Slot) -> T,
    ) -> Option<T> {
        let slot = self.slots.get_mut(&clone)?;
        self.index.leave(clone, slot, &self.rules);
        let changed = change(slot);
        self.index.enter(clone, slot, &self.rules);
        Some(changed)
    }

    /// Forgets a clone.
    pub(crate) fn remove(&mut self, clone: CloneKey) {
        if let Some(slot) = self.slots.remove(&clone) {
            self.index.leave(clone, &slot, &self.rules);
            self.gone.push(clone);
        }
    }

    /// The clones that were forgotten since this was asked last.
    pub(crate) fn take_gone(&mut self) -> Vec<CloneKey> {
        std::mem::take(&mut self.gone)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All clones, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CloneKey, &Slot)> {
        self.slots.iter().map(|(key, slot)| (*key, slot))
    }

    /// Those of all clones for which something holds, oldest first. For what happens rarely: it looks at each of them.
    pub(crate) fn those(&self, holds: impl Fn(&Slot) -> bool) -> Vec<CloneKey> {
        let those = self.iter().filter(|(_, slot)| holds(slot));
        those.map(|(clone, _)| clone).collect()
    }

    /// Other rules hold from now on. The index is made again where they differ.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        if rules != self.rules {
            self.rules = rules;
            self.index = self.reindexed();
        }
    }

    /// The index, made from all clones at once.
    pub(crate) fn reindexed(&self) -> Index {
        let mut index = Index::default();
        for (clone, slot) in &self.slots {
            index.enter(*clone, slot, &self.rules);
        }
        index
    }

    /// Counts, orders and times of all clones.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }
}
