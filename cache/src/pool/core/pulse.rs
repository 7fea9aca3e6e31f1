//! Whether a guest still answers: which one is asked when, and what silence means.
//!
//! ```text
//!  ready     heard ---- its turn ---> asked ---- answer ----> heard
//!                                       |  no answer, or its hypervisor is stopped
//!                                       v
//!                                     ended
//!
//!  leased    heard ---- its turn ---> doubted ---- guest_timeout ---> unresponsive ---- guest_timeout ---> ended
//!              ^                        |                                  |
//!              +-------- answer --------+----------------------------------+
//! ```
//! Turns: the guest that was heard from longest ago is asked first, no guest more often than once a `pace`, and the
//! pool's questions are spread evenly over that time. The pace is the node's (`crate::asking`): it grows with the number
//! of guests, so all questions together take a bounded share of one core.
//!
//! A leased guest is doubted only from a question on that it left unanswered: a guest whose turn comes late is not
//! called unresponsive for it. The second `guest_timeout` begins when the guest is declared unresponsive, so a service
//! that was itself stopped for a while hears the answers that wait for it before it ends anything.

use std::time::Duration;

use super::event::{Effect, EndReason};
use super::ids::{CloneKey, Moment};
use super::machine::Core;
use super::roster::{Slot, State};

/// The shortest time between two questions to the same guest: short enough that in a small pool every ready clone was
/// heard from within the freshness that a checkout wants.
pub(crate) const SHORTEST_PACE: Duration = Duration::from_secs(2);
/// A leased guest is asked so many times within its `guest_timeout`.
const QUESTIONS_PER_TIMEOUT: u32 = 4;

/// What is known of a guest's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// The last answer; `None` while this service has heard none.
    pub heard: Option<Moment>,
    /// The last answer or question, which the next turn is counted from.
    pub looked: Option<Moment>,
    /// The first question since the last answer.
    pub silent_since: Option<Moment>,
    /// Whether a question is under way.
    pub is_asked: bool,
    /// When it was declared unresponsive.
    pub unresponsive_at: Option<Moment>,
}

impl Pulse {
    /// The guest has answered just now.
    pub(super) fn beats(&mut self, now: Moment) {
        *self = Self {
            heard: Some(now),
            looked: Some(now),
            ..Self::default()
        };
    }

    /// The guest is asked now.
    fn is_taken(&mut self, now: Moment) {
        self.is_asked = true;
        self.looked = Some(now);
        self.silent_since.get_or_insert(now);
    }

    /// The end of the time that a leased guest has for an answer, if it owes one.
    pub(super) fn deadline(&self, guest_timeout: Duration) -> Option<Moment> {
        let since = self.unresponsive_at.or(self.silent_since)?;
        Some(since.after(guest_timeout))
    }
}

impl Core {
    /// Sets the shortest time between two questions to one guest, as the whole node has it now.
    pub(crate) fn set_pace(&mut self, pace: Duration) {
        self.pace = pace.max(SHORTEST_PACE);
    }

    /// Guests that are asked in turn.
    pub(crate) fn asked_in_turn(&self) -> usize {
        self.roster.index().asked_in_turn()
    }

    /// When the next question is due, and to which guest.
    pub(super) fn next_question(&self) -> Option<(Moment, CloneKey)> {
        let index = self.roster.index();
        let due = |(looked, clone): (Option<Moment>, CloneKey), pause| {
            let at = looked.map_or(Moment::default(), |looked| looked.after(pause));
            (at, clone)
        };
        let ready = index.next_ready_turn().map(|turn| due(turn, self.pace));
        let leased_pause = self
            .limits
            .guest_timeout
            .map_or(self.pace, |timeout| timeout / QUESTIONS_PER_TIMEOUT)
            .max(self.pace);
        let leased = index.next_leased_turn().map(|turn| due(turn, leased_pause));
        let (at, clone) = ready.into_iter().chain(leased).min()?;
        let guests = u32::try_from(self.asked_in_turn()).unwrap_or(u32::MAX);
        let spread = self
            .last_question
            .map(|last| last.after(self.pace / guests.max(1)));
        Some((spread.map_or(at, |spread| at.max(spread)), clone))
    }

    /// Asks the guests whose turn has come.
    pub(super) fn ask_in_turn(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now;
        while let Some((at, clone)) = self.next_question()
            && at <= now
        {
            self.last_question = Some(now);
            self.roster.update(clone, |slot| slot.pulse.is_taken(now));
            effects.push(Effect::Ping { clone });
        }
    }

    /// A guest was heard from.
    pub(super) fn answered(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        let now = self.now;
        let returns = self.roster.update(clone, |slot| {
            let returns = slot.pulse.unresponsive_at.is_some();
            slot.pulse.beats(now);
            returns
        });
        let is_leased = matches!(self.clone_state(clone), Some(State::Leased { .. }));
        if returns == Some(true) && is_leased {
            effects.push(Effect::Responsive { clone });
        }
    }

    /// Leased guests are asked no longer: none of them is unresponsive, since no answer would ever say that it is back.
    pub(super) fn nobody_owes_an_answer(&mut self, effects: &mut Vec<Effect>) {
        let owes = |slot: &Slot| {
            matches!(slot.state, State::Leased { .. }) && slot.pulse.silent_since.is_some()
        };
        for clone in self.roster.those(owes) {
            let was_told = self.roster.update(clone, |slot| {
                slot.pulse.silent_since = None;
                slot.pulse.unresponsive_at.take().is_some()
            });
            if was_told == Some(true) {
                effects.push(Effect::Responsive { clone });
            }
        }
    }

    /// A guest did not answer a question.
    pub(super) fn silent(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        let was_asked = self.roster.update(clone, |slot| {
            std::mem::replace(&mut slot.pulse.is_asked, false)
        });
        // A leased one is asked again in its turn, and has `guest_timeout` to answer.
        if was_asked == Some(true) && self.clone_state(clone) == Some(State::Ready) {
            self.end(clone, EndReason::Silent, effects);
        }
    }

    /// The hypervisor of a clone is stopped. Of a leased one its silence tells.
    pub(super) fn stalled(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        if self.clone_state(clone) == Some(State::Ready) {
            self.end(clone, EndReason::Stalled, effects);
        }
    }

    /// The time that a leased guest had for an answer is over.
    pub(super) fn is_overdue(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        let now = self.now;
        let was_told = self.roster.update(clone, |slot| {
            slot.pulse.unresponsive_at.replace(now).is_some()
        });
        match was_told {
            Some(true) => self.end(clone, EndReason::Unresponsive, effects),
            Some(false) => effects.push(Effect::Unresponsive { clone }),
            None => {}
        }
    }
}
