//! Whether the host has memory for another clone, as far as the pool was told: that nothing is wrong with it, and that
//! it waits.
//!
//! ```text
//!           refused                    freed, or a second has passed
//!  enough -----------> short, paused ------------------------------> short ---- refused ----> (paused again)
//!    ^                       |                                         |
//!    +-----------------------+----- a later one was made; none wanted --+
//! ```
//! A refusal is no failure: nothing is degraded by it, and no pause grows.

use std::time::Duration;

use super::event::Effect;
use super::ids::{CloneKey, Moment};
use super::machine::Core;
use super::roster::State;

/// The pause after a refusal. Whoever gives memory back says so at once; this is for whatever nobody told. A try is a sum
/// under a lock, so the pause needs neither to grow nor to be spread.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether there is memory for another clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    short: Option<Short>,
    /// Whether the operator was told, and not yet that it is over: a pool at the limit that makes one clone for each
    /// that goes is short again and again.
    is_told: bool,
}

#[derive(Clone, Debug)]
struct Short {
    why: String,
    /// The last clone that was refused.
    refused: CloneKey,
    not_before: Moment,
}

impl Room {
    /// Whether another launch may be tried now.
    pub(super) fn allows(&self, now: Moment) -> bool {
        self.short
            .as_ref()
            .is_none_or(|short| now >= short.not_before)
    }

    /// Whether the last launch that was tried was refused.
    pub(super) fn is_short(&self) -> bool {
        self.short.is_some()
    }

    /// The sum that does not fit.
    pub(super) fn why(&self) -> Option<&str> {
        self.short.as_ref().map(|short| short.why.as_str())
    }

    /// When the next launch may be tried, if that is later than now.
    pub(super) fn pause_ends(&self, now: Moment) -> Option<Moment> {
        let end = self.short.as_ref()?.not_before;
        (end > now).then_some(end)
    }

    /// There may be more now.
    pub(super) fn freed(&mut self) {
        if let Some(short) = &mut self.short {
            short.not_before = Moment::default();
        }
    }

    /// A clone was refused. Returns whether that is news.
    fn refused(&mut self, now: Moment, clone: CloneKey, why: String) -> bool {
        let short = Short {
            why,
            refused: clone,
            not_before: now.after(PAUSE),
        };
        self.short = Some(short);
        !std::mem::replace(&mut self.is_told, true)
    }

    /// There was room for this clone.
    pub(super) fn admitted(&mut self, clone: CloneKey) {
        self.short.take_if(|short| short.refused < clone);
    }
}

impl Core {
    /// There is no memory for a clone that was to be made: nothing of it was begun.
    pub(super) fn no_room(&mut self, clone: CloneKey, why: String, effects: &mut Vec<Effect>) {
        match self.clone_state(clone) {
            Some(State::Launching) => {
                self.roster.remove(clone);
                let reason = why.clone();
                if self.room.refused(self.now, clone, why) {
                    effects.push(Effect::OutOfRoom { reason });
                }
            }
            // It was given up before it was refused.
            Some(State::Releasing) => self.roster.remove(clone),
            Some(State::Ready | State::Leased { .. }) | None => {}
        }
    }

    /// A pool that would make none is not short of memory.
    pub(super) fn forget_shortage(&mut self, effects: &mut Vec<Effect>) {
        let tally = self.tally();
        let wants_none = self.wanted(&tally) == 0 || tally.alive() >= self.limits.max;
        if wants_none && tally.in_flight() == 0 && std::mem::take(&mut self.room).is_told {
            effects.push(Effect::RoomAgain);
        }
    }

    /// Why there is no memory for another clone.
    pub(crate) fn short_of_memory(&self) -> Option<&str> {
        self.room.why()
    }
}
