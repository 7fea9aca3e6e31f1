//! Clones of an earlier service, taken in before anything else happens.

use std::time::Duration;

use super::event::{Effect, EndReason};
use super::ids::{CloneKey, Epoch, Moment};
use super::machine::Core;
use super::roster::{Ping, State};

impl Core {
    /// Takes in a clone that nobody has. Its guest is asked for a sign of life at once: who knows what it went through.
    pub(crate) fn adopt_ready(&mut self, now: Moment, epoch: Epoch) -> CloneKey {
        let clone = self.adopt(now, epoch);
        self.make_ready(clone);
        let is_asked = self.limits.ping_every.is_some();
        if is_asked && let Some(slot) = self.roster.get_mut(clone) {
            let ping = Ping::Due(now);
            slot.state = State::Ready { ping };
        }
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
        if let Some(slot) = self.roster.get_mut(clone) {
            let expires = left.map(|left| now.after(left));
            slot.state = State::Leased { expires };
        }
        clone
    }

    /// What was taken in must not be handed out after all.
    pub(super) fn discard(&mut self, effects: &mut Vec<Effect>) {
        for (clone, slot) in self.roster.iter_mut() {
            if matches!(slot.state, State::Ready { .. }) {
                slot.state = State::Releasing;
                let why = EndReason::Foreign;
                effects.push(Effect::End { clone, why });
            }
        }
    }

    fn adopt(&mut self, now: Moment, epoch: Epoch) -> CloneKey {
        self.now = self.now.max(now);
        self.roster.begin(now, epoch)
    }
}
