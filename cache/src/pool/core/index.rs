//! What an event needs to know of all clones, kept up to date with each change of one: counts, orders and times.
//!
//! Each question of the core (how many are ready, which one is granted next, what is due) is answered from here in
//! logarithmic time, so an event costs the same in a pool of ten clones and in one of ten thousand. The roster takes a
//! clone out before it changes and puts it back in afterwards; the model test compares the result with one that is made
//! from all clones at once.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::ids::{CloneKey, Epoch, Moment};
use super::roster::{Slot, State, Tally};

/// What the index is made by, beside the clones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The generation that clones are made from.
    pub current: Option<Epoch>,
    /// Whether ready guests are asked for an answer: their virtual CPUs run.
    pub asks_ready: bool,
    /// How long a leased guest may owe an answer; `None` asks none.
    pub guest_timeout: Option<Duration>,
}

/// The place of a ready clone in the order in which they are granted: one to be kept before one to be replaced, one whose
/// guest owes no answer before one that does, the one heard from last, and the oldest of those.
type Rank = (bool, bool, Reverse<Option<Moment>>, CloneKey);
/// A guest that may be asked, and when it was asked or heard from last.
pub(super) type Turn = (Option<Moment>, CloneKey);

/// Counts, orders and times of all clones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    tally: Tally,
    /// Ready clones of the current generation, and all others, in the order in which they are granted.
    ready: BTreeSet<Rank>,
    ready_old: BTreeSet<Rank>,
    /// Ready clones in the order in which the pool does without them.
    surplus: BTreeSet<(bool, CloneKey)>,
    /// The next moment at which something about a clone is due.
    due: BTreeSet<(Moment, CloneKey)>,
    ready_turns: BTreeSet<Turn>,
    leased_turns: BTreeSet<Turn>,
    asked: usize,
}

impl Index {
    /// Puts a clone in.
    pub(super) fn enter(&mut self, clone: CloneKey, slot: &Slot, rules: &Rules) {
        *self.tally.of(slot, rules) += 1;
        self.tally.unresponsive += usize::from(slot.is_unresponsive());
        self.asked += usize::from(is_asked(slot, rules));
        self.due.extend(due(slot, rules).map(|at| (at, clone)));
        if let Some(turns) = self.turns(slot, rules) {
            turns.insert((slot.pulse.looked, clone));
        }
        if slot.state == State::Ready {
            let is_stale = slot.is_stale(rules.current);
            self.surplus.insert((!is_stale, clone));
            self.granted(slot, rules)
                .insert(rank(clone, slot, is_stale, rules));
        }
    }

    /// Takes a clone out, as it was put in.
    pub(super) fn leave(&mut self, clone: CloneKey, slot: &Slot, rules: &Rules) {
        *self.tally.of(slot, rules) -= 1;
        self.tally.unresponsive -= usize::from(slot.is_unresponsive());
        self.asked -= usize::from(is_asked(slot, rules));
        if let Some(at) = due(slot, rules) {
            self.due.remove(&(at, clone));
        }
        if let Some(turns) = self.turns(slot, rules) {
            turns.remove(&(slot.pulse.looked, clone));
        }
        if slot.state == State::Ready {
            let is_stale = slot.is_stale(rules.current);
            self.surplus.remove(&(!is_stale, clone));
            self.granted(slot, rules)
                .remove(&rank(clone, slot, is_stale, rules));
        }
    }

    /// How many clones there are of each kind.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// The ready clone to grant next. `uses_up`: those of older generations come first of all.
    pub(super) fn best_ready(&self, uses_up: bool) -> Option<CloneKey> {
        let (current, old) = (self.ready.first(), self.ready_old.first());
        let best = if uses_up {
            old.or(current)
        } else {
            current.into_iter().chain(old).min()
        };
        best.map(|rank| rank.3)
    }

    /// The ready clone to do without first: one to be replaced before one to be kept, and the oldest of those.
    pub(super) fn worst_ready(&self) -> Option<CloneKey> {
        self.surplus.first().map(|(_, clone)| *clone)
    }

    /// Ready clones of the current generation.
    pub(super) fn updated(&self) -> usize {
        self.ready.len()
    }

    /// Whether a ready clone of another generation is left.
    pub(super) fn old_ones_serve(&self) -> bool {
        !self.ready_old.is_empty()
    }

    /// The clone about which something is due first, and when.
    pub(super) fn next_due(&self) -> Option<(Moment, CloneKey)> {
        self.due.first().copied()
    }

    /// The ready guest that was asked or heard from longest ago, of those that are not being asked.
    pub(super) fn next_ready_turn(&self) -> Option<Turn> {
        self.ready_turns.first().copied()
    }

    /// The same among the leased ones.
    pub(super) fn next_leased_turn(&self) -> Option<Turn> {
        self.leased_turns.first().copied()
    }

    /// Guests that are asked in turn, those included that are being asked.
    pub(super) fn asked_in_turn(&self) -> usize {
        self.asked
    }

    fn granted(&mut self, slot: &Slot, rules: &Rules) -> &mut BTreeSet<Rank> {
        if rules.current == Some(slot.epoch) {
            &mut self.ready
        } else {
            &mut self.ready_old
        }
    }

    fn turns(&mut self, slot: &Slot, rules: &Rules) -> Option<&mut BTreeSet<Turn>> {
        let waits = is_asked(slot, rules) && !slot.pulse.is_asked;
        waits.then_some(if slot.state == State::Ready {
            &mut self.ready_turns
        } else {
            &mut self.leased_turns
        })
    }
}

impl Tally {
    /// The count that a clone belongs to.
    fn of(&mut self, slot: &Slot, rules: &Rules) -> &mut usize {
        match slot.state {
            State::Launching if rules.current == Some(slot.epoch) => &mut self.launching,
            State::Launching => &mut self.launching_old,
            State::Ready if slot.is_stale(rules.current) => &mut self.stale,
            State::Ready => &mut self.fresh,
            State::Leased { .. } => &mut self.leased,
            State::Releasing => &mut self.releasing,
        }
    }
}

fn rank(clone: CloneKey, slot: &Slot, is_stale: bool, rules: &Rules) -> Rank {
    // Of clones that stand still nothing is heard: the oldest goes first.
    let heard = slot.pulse.heard.filter(|_| rules.asks_ready);
    (is_stale, slot.pulse.is_asked, Reverse(heard), clone)
}

/// Whether its guest is asked in turn. One that was made with other settings is on its way out: whether its virtual
/// CPUs run is not what the settings say.
fn is_asked(slot: &Slot, rules: &Rules) -> bool {
    match slot.state {
        State::Ready => rules.asks_ready && !slot.is_outdated,
        State::Leased { .. } => rules.guest_timeout.is_some() && !slot.is_mute,
        State::Launching | State::Releasing => false,
    }
}

/// When something about it is due next.
fn due(slot: &Slot, rules: &Rules) -> Option<Moment> {
    match slot.state {
        State::Ready => slot.best_before.filter(|_| !slot.is_aged),
        State::Leased { expires } => {
            let timeout = rules.guest_timeout;
            let answer = timeout.and_then(|timeout| slot.pulse.deadline(timeout));
            expires.into_iter().chain(answer).min()
        }
        State::Launching | State::Releasing => None,
    }
}
