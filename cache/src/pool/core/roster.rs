//! The living clones of a pool, each with its state.
//!
//! ```text
//!              Launched            grant              Released, expired, died
//!  Launching ----------> Ready ------------> Leased ---------------------------> Releasing ----> (gone)
//!      |                   ^    Returned       |                                    ^    Ended
//!      | LaunchFailed      +-------------------+                                    |
//!      v                   |                                                        |
//!    (gone)                +--- died, silent, too old, surplus, of older make --------+
//! ```
//!
//! A clone is counted from the order to make it until its process is gone: that is what `max` bounds.

use std::collections::BTreeMap;

use super::ids::{CloneKey, Epoch, Moment};

/// One living clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// What it is, or will be, a clone of.
    pub epoch: Epoch,
    /// When it was ordered.
    pub begun: Moment,
    /// When it has been unused for too long; known once it is ready.
    pub best_before: Option<Moment>,
    /// Whether it was ordered with settings of the pool that hold no longer.
    pub is_outdated: bool,
    /// Where it is in its life.
    pub state: State,
}

/// Where a clone is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Being made.
    Launching,
    /// Proved and unused.
    Ready { ping: Ping },
    /// Granted, until the lease ends.
    Leased { expires: Option<Moment> },
    /// Being ended.
    Releasing,
}

/// The question whether a ready clone's guest still answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ping {
    /// Never asked: its virtual CPUs stand still.
    Never,
    /// To be asked then.
    Due(Moment),
    /// Asked, and not answered yet.
    Asked,
}

impl Slot {
    /// Whether it is ready, but to be replaced: it is too old, of an older generation, or made with other settings.
    fn is_stale(&self, now: Moment, current: Option<Epoch>) -> bool {
        self.is_outdated
            || current.is_some_and(|epoch| epoch != self.epoch)
            || self.best_before.is_some_and(|end| end <= now)
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

/// All living clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    slots: BTreeMap<CloneKey, Slot>,
    next_key: u64,
}

impl Roster {
    /// Adds a clone that is being made.
    pub(crate) fn begin(&mut self, now: Moment, epoch: Epoch) -> CloneKey {
        let key = CloneKey(self.next_key);
        self.next_key += 1;
        self.slots.insert(
            key,
            Slot {
                epoch,
                begun: now,
                best_before: None,
                is_outdated: false,
                state: State::Launching,
            },
        );
        key
    }

    /// One clone.
    pub(crate) fn get(&self, clone: CloneKey) -> Option<&Slot> {
        self.slots.get(&clone)
    }

    /// One clone, to change it.
    pub(crate) fn get_mut(&mut self, clone: CloneKey) -> Option<&mut Slot> {
        self.slots.get_mut(&clone)
    }

    /// Forgets a clone.
    pub(crate) fn remove(&mut self, clone: CloneKey) {
        self.slots.remove(&clone);
    }

    /// All clones, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CloneKey, &Slot)> {
        self.slots.iter().map(|(key, slot)| (*key, slot))
    }

    /// All clones, oldest first, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (CloneKey, &mut Slot)> {
        self.slots.iter_mut().map(|(key, slot)| (*key, slot))
    }

    /// Counts them.
    pub(crate) fn tally(&self, now: Moment, current: Option<Epoch>) -> Tally {
        let mut tally = Tally::default();
        for slot in self.slots.values() {
            let count = match slot.state {
                State::Launching if current == Some(slot.epoch) => &mut tally.launching,
                State::Launching => &mut tally.launching_old,
                State::Ready { .. } if slot.is_stale(now, current) => &mut tally.stale,
                State::Ready { .. } => &mut tally.fresh,
                State::Leased { .. } => &mut tally.leased,
                State::Releasing => &mut tally.releasing,
            };
            *count += 1;
        }
        tally
    }

    /// The ready clone to grant next: one to be kept before one to be replaced, one whose guest is not being asked for
    /// a sign of life before one that still owes it, and the oldest of those. `uses_up`: those of older generations come
    /// first of all.
    pub(crate) fn best_ready(
        &self,
        now: Moment,
        current: Option<Epoch>,
        uses_up: bool,
    ) -> Option<CloneKey> {
        self.ready()
            .min_by_key(|(key, slot, ping)| {
                let waits = uses_up && current == Some(slot.epoch);
                let owes = *ping == Ping::Asked;
                (waits, slot.is_stale(now, current), owes, *key)
            })
            .map(first)
    }

    /// The ready clone to do without first: one to be replaced before one to be kept, and the oldest of those.
    pub(crate) fn worst_ready(&self, now: Moment, current: Option<Epoch>) -> Option<CloneKey> {
        self.ready()
            .min_by_key(|(key, slot, _)| (!slot.is_stale(now, current), *key))
            .map(first)
    }

    fn ready(&self) -> impl Iterator<Item = (CloneKey, &Slot, Ping)> {
        self.iter().filter_map(|(key, slot)| match slot.state {
            State::Ready { ping } => Some((key, slot, ping)),
            State::Launching | State::Leased { .. } | State::Releasing => None,
        })
    }
}

fn first<A, B, C>(triple: (A, B, C)) -> A {
    triple.0
}
