//! The way from one generation to the next, and back when the next one is no good.
//!
//! ```text
//!                         a clone of it is ready
//!   published ---> doubted ----------------------> proven ---> rolled: as many as `target` were made, and no ready
//!                    |  ^                            |         clone of the one before is left
//!                    |  +-------- a failure ---------+
//!                    |  three failures in a row; damage; the progress deadline
//!                    v
//!                  gone back: the one before is current again
//! ```
//! While it is doubted a single clone of it is made at a time, beside the refill, which goes on from the generation before:
//! whatever is wrong with the new one, those who want a sandbox do not notice. Once proven, all clones are made from it,
//! and each takes the place of one of the generation before, which serves until then.
//!
//! What the host is at fault for (its hypervisor cannot be read, say) is no failure of the new generation.
//!
//! The progress deadline runs only while a clone of the new generation is being made: where `max` is reached, memory is
//! short or the pool drains, nothing is the generation's fault.

use rand::Rng;
use vmint_factory::Phase;

use super::event::Effect;
use super::health::{BACKOFF, DEGRADED_AFTER};
use super::ids::{Epoch, Moment};
use super::machine::Core;
use crate::mint::Fault;

/// Failures in a row after which a new generation is given up: as many as degrade a pool.
const GIVES_UP_AFTER: u32 = DEGRADED_AFTER;

/// A pool on its way to another generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roll {
    /// The generation before.
    pub from: Epoch,
    /// The new one.
    pub to: Epoch,
    /// Until when another clone of it must be ready; none while none is being made.
    pub progress_by: Option<Moment>,
    /// Whether it is given up when it is no good.
    on_trial: bool,
    is_proven: bool,
    failures: u32,
    not_before: Moment,
    made: usize,
}

impl Roll {
    fn is_doubted(&self) -> bool {
        self.on_trial && !self.is_proven
    }
}

impl Core {
    pub(super) fn published(&mut self, epoch: Epoch, on_trial: bool, effects: &mut Vec<Effect>) {
        let unfinished = self.roll.take();
        let before = self.epoch;
        self.set_epoch(epoch);
        let doubted = unfinished.filter(Roll::is_doubted);
        if let Some(roll) = &doubted {
            self.abandon(roll.to, effects);
        }
        // One that has proved nothing is nothing to go back to: the one before it still serves.
        let from = doubted.map(|roll| roll.from).or(before);
        let Some(from) = from.filter(|from| *from != epoch) else {
            self.health.new_generation();
            return;
        };
        // A pool that keeps none has nothing to prove it by.
        let on_trial = on_trial && self.limits.target > 0 && !self.health.is_damaged(from);
        if !on_trial {
            self.health.new_generation();
        }
        self.roll = Some(Roll {
            from,
            to: epoch,
            progress_by: None,
            on_trial,
            is_proven: false,
            failures: 0,
            not_before: Moment::default(),
            made: 0,
        });
        effects.push(Effect::Rolls { from, to: epoch });
    }

    fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
        self.set_rules();
    }

    /// The generation that the refill is made from.
    pub(super) fn supplier(&self) -> Option<Epoch> {
        let doubted = self.roll.as_ref().filter(|roll| roll.is_doubted());
        doubted.map(|roll| roll.from).or(self.epoch)
    }

    /// The new generation, while it is to be proved by one clone at a time.
    pub(super) fn on_trial(&self) -> Option<Epoch> {
        let doubted = self.roll.as_ref().filter(|roll| roll.is_doubted())?;
        Some(doubted.to)
    }

    /// Whether the next clone on trial may be made now.
    pub(super) fn trial_is_due(&self) -> bool {
        let roll = self.roll.as_ref();
        self.limits.target > 0
            && roll.is_some_and(|roll| roll.is_doubted() && roll.not_before <= self.now)
    }

    /// Whether those of the generation before are granted first: once the new one would have filled the pool, and they are
    /// only left because its clones are taken as fast as they are made. Else a busy pool would never be over.
    pub(super) fn uses_up_old_ones(&self) -> bool {
        let roll = self.roll.as_ref();
        roll.is_some_and(|roll| !roll.is_doubted() && roll.made >= self.limits.target)
    }

    /// When the roll must be looked at again.
    pub(super) fn roll_wakes(&self) -> Option<Moment> {
        let roll = self.roll.as_ref()?;
        let pause = Some(roll.not_before).filter(|end| *end > self.now);
        pause.into_iter().chain(roll.progress_by).min()
    }

    /// A clone became ready.
    pub(super) fn noted_success(&mut self, epoch: Epoch) {
        if let Some(roll) = self.roll.as_mut().filter(|roll| roll.to == epoch) {
            roll.is_proven = true;
            roll.failures = 0;
            roll.made += 1;
            roll.progress_by = None;
        }
    }

    /// A clone could not be made. Returns whether that was a trial that the generation failed, and so says nothing of the
    /// pool's health.
    pub(super) fn failed_on_trial(
        &mut self,
        epoch: Epoch,
        (phase, fault, reason): (Phase, Fault, &str),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let trial = self.roll.as_mut();
        let Some(roll) = trial.filter(|roll| roll.on_trial && roll.to == epoch) else {
            return false;
        };
        if fault == Fault::Host {
            // Any other generation would have failed in the same way: this one is tried again later.
            roll.not_before = self
                .now
                .after(BACKOFF.pause(GIVES_UP_AFTER, self.rng.random()));
            return false;
        }
        roll.failures += 1;
        roll.is_proven = false;
        let pause = BACKOFF.pause(roll.failures, self.rng.random());
        roll.not_before = self.now.after(pause);
        let failures = roll.failures;
        let phase = phase.as_str();
        if fault == Fault::Generation {
            let why = format!("it is damaged, found in phase {phase} of a clone: {reason}");
            self.go_back(why, effects);
        } else if failures >= GIVES_UP_AFTER {
            let why = format!(
                "{failures} clones of it failed in a row, the last in phase {phase}: {reason}"
            );
            self.go_back(why, effects);
        }
        true
    }

    /// The generation before cannot be gone back to: what is new must do.
    pub(super) fn cannot_go_back_to(&mut self, epoch: Epoch) -> bool {
        match &mut self.roll {
            Some(roll) if roll.from == epoch && roll.on_trial => {
                roll.on_trial = false;
                roll.progress_by = None;
                self.health.new_generation();
                true
            }
            Some(_) | None => false,
        }
    }

    pub(super) fn give_up_when_overdue(&mut self, effects: &mut Vec<Effect>) {
        let deadline = self.roll.as_ref().and_then(|roll| roll.progress_by);
        if deadline.is_some_and(|end| end <= self.now) {
            let seconds = self.limits.progress.as_secs();
            let why = format!("no clone of it became ready within {seconds} s");
            self.go_back(why, effects);
        }
    }

    fn go_back(&mut self, reason: String, effects: &mut Vec<Effect>) {
        if let Some(roll) = self.roll.take() {
            self.set_epoch(roll.from);
            self.abandon(roll.to, effects);
            effects.push(Effect::RollBack {
                given_up: roll.to,
                back_to: roll.from,
                reason,
            });
        }
    }

    /// Gives up the clones of a generation that are being made.
    fn abandon(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        self.abandon_launches(|slot| slot.epoch == epoch, effects);
    }

    /// Runs the deadline while clones of the new generation are being made, and notices the end of the roll.
    pub(super) fn watch_roll(&mut self, effects: &mut Vec<Effect>) {
        let Some(roll) = &self.roll else {
            return;
        };
        let (to, target) = (roll.to, self.limits.target);
        let old_serve = self.roster.index().old_ones_serve();
        let is_under_way = self.tally().launching > 0;
        let is_good = !roll.is_doubted() || target == 0;
        if is_good && roll.made >= target && !old_serve {
            if roll.is_doubted() {
                self.health.new_generation();
            }
            self.roll = None;
            effects.push(Effect::Rolled { to });
            return;
        }
        let deadline = self.now.after(self.limits.progress);
        if let Some(roll) = &mut self.roll {
            let runs = is_under_way && roll.on_trial;
            roll.progress_by = runs.then(|| roll.progress_by.unwrap_or(deadline));
        }
    }

    /// The roll that goes on.
    pub(crate) fn roll(&self) -> Option<&Roll> {
        self.roll.as_ref()
    }

    /// The generation that clones are made from.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Whether clones may yet be made from this generation.
    pub(crate) fn needs(&self, epoch: Epoch) -> bool {
        self.epoch == Some(epoch) || self.roll.as_ref().is_some_and(|roll| roll.from == epoch)
    }

    /// Ready clones of the generation that clones are made from.
    pub(crate) fn updated(&self) -> usize {
        self.roster.index().updated()
    }
}
