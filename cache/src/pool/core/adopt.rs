//! Clones of an earlier service, taken in before anything else happens.

use std::time::Duration;

use super::event::{Effect, EndReason};
use super::ids::{CloneKey, Epoch, Moment};
use super::machine::Core;
use super::roster::State;

impl Core {
    /// Takes in a clone that nobody has. Its guest is asked for an answer first of all: what it went through is not known.
    pub(crate) fn adopt_ready(&mut self, now: Moment, epoch: Epoch) -> CloneKey {
        let clone = self.adopt(now, epoch);
        self.make_ready(clone);
        clone
    }

    /// Takes in a clone that somebody has for so long yet; `None` is until the release.
    pub(crate) fn adopt_leased(
        &mut self,
        now: Moment,
        epoch: Epoch,
        left: Option<Duration>,
    ) -> CloneKey {
        let clone = self.adopt(now, epoch);
        let expires = left.map(|left| now.after(left));
        self.roster
            .update(clone, |slot| slot.state = State::Leased { expires });
        clone
    }

    /// The guest of a leased clone is never asked for an answer, and so never owes one.
    pub(crate) fn never_ask(&mut self, clone: CloneKey) {
        self.roster.update(clone, |slot| slot.is_mute = true);
    }

    /// What was taken in must not be handed out after all.
    pub(super) fn discard(&mut self, effects: &mut Vec<Effect>) {
        for clone in self.roster.those(|slot| slot.state == State::Ready) {
            self.end(clone, EndReason::Foreign, effects);
        }
    }

    fn adopt(&mut self, now: Moment, epoch: Epoch) -> CloneKey {
        self.now = self.now.max(now);
        self.roster.begin(now, epoch)
    }
}
