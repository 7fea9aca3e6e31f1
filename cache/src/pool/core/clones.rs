//! What happens to single clones, and what they become by it: the arrows of the drawing in `roster.rs`.

use std::time::Duration;

use rand::Rng;
use vmint_factory::Phase;

use super::event::{Effect, EndReason};
use super::ids::CloneKey;
use super::machine::{Core, Course, Limits};
use super::roster::State;
use crate::mint::Fault;

/// How much earlier than `max_age` a clone may be replaced, as a share of it: clones that were made together are not
/// all replaced together.
const AGE_STAGGER: f64 = 0.2;

impl Core {
    pub(super) fn launched(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        self.room.admitted(clone);
        let Some(slot) = self.roster.get(clone) else {
            return;
        };
        match slot.state {
            State::Launching => {
                let epoch = slot.epoch;
                let counts = self.epoch == Some(epoch) || self.supplier() == Some(epoch);
                self.make_ready(clone);
                let now = self.now;
                self.roster.update(clone, |slot| slot.pulse.beats(now));
                self.noted_success(epoch);
                if counts && self.health.succeeded(epoch) {
                    effects.push(Effect::Recovered);
                }
            }
            // It was given up while its success was on its way here.
            State::Releasing => {
                let why = if self.course == Course::Withdrawn {
                    EndReason::Withdrawn
                } else {
                    EndReason::GivenUp
                };
                effects.push(Effect::End { clone, why });
            }
            State::Ready | State::Leased { .. } => {}
        }
    }

    /// The pool has other settings: they hold for what is made from now on, and ages for what is there.
    pub(super) fn reconfigure(&mut self, limits: Limits, renew: bool, effects: &mut Vec<Effect>) {
        let max_age_is_new = limits.max_age != self.limits.max_age;
        self.limits = limits;
        self.queue.set_limit(limits.queue);
        self.set_rules();
        if limits.guest_timeout.is_none() {
            self.nobody_owes_an_answer(effects);
        }
        if renew {
            for clone in self.roster.those(|slot| !slot.is_outdated) {
                self.roster.update(clone, |slot| slot.is_outdated = true);
            }
        }
        if max_age_is_new {
            for clone in self.roster.those(|slot| slot.state == State::Ready) {
                let share = self.share_of_age();
                let now = self.now;
                self.roster.update(clone, |slot| {
                    let end = limits
                        .max_age
                        .map(|age| slot.begun.after(age.mul_f64(share)));
                    slot.best_before = end;
                    slot.is_aged = end.is_some_and(|end| end <= now);
                });
            }
        }
    }

    pub(super) fn make_ready(&mut self, clone: CloneKey) {
        let share = self.share_of_age();
        let max_age = self.limits.max_age;
        let best_before = max_age.map(|age| self.now.after(age.mul_f64(share)));
        self.roster.update(clone, |slot| {
            slot.best_before = best_before;
            slot.state = State::Ready;
        });
    }

    fn share_of_age(&mut self) -> f64 {
        1.0 - AGE_STAGGER * self.rng.random::<f64>()
    }

    pub(super) fn launch_failed(
        &mut self,
        clone: CloneKey,
        (phase, fault, reason): (Phase, Fault, &str),
        effects: &mut Vec<Effect>,
    ) {
        self.room.admitted(clone);
        let Some(slot) = self.roster.get(clone) else {
            return;
        };
        let epoch = slot.epoch;
        let was_wanted = match slot.state {
            State::Launching => true,
            State::Releasing => false,
            State::Ready | State::Leased { .. } => return,
        };
        self.roster.remove(clone);
        if !was_wanted || self.failed_on_trial(epoch, (phase, fault, reason), effects) {
            return;
        }
        let damage = fault == Fault::Generation;
        if self.supplier() != Some(epoch) || self.health.is_damaged(epoch) {
            return;
        }
        if damage && self.cannot_go_back_to(epoch) {
            return;
        }
        if damage {
            self.health.found_damage(epoch, phase, reason);
            effects.push(Effect::Rebuild {
                epoch,
                reason: reason.to_owned(),
            });
        } else if !self
            .health
            .failed(self.now, phase, reason, self.rng.random())
        {
            return;
        }
        effects.push(Effect::Degraded {
            reason: self.health.degraded().unwrap_or_default().to_owned(),
        });
    }

    pub(super) fn died(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        match self.clone_state(clone) {
            Some(State::Ready | State::Leased { .. }) => self.end(clone, EndReason::Died, effects),
            // While it is made, its launch says so; while it is ended, its end does.
            Some(State::Launching | State::Releasing) | None => {}
        }
    }

    pub(super) fn returned(&mut self, clone: CloneKey) {
        let is_leased = matches!(self.clone_state(clone), Some(State::Leased { .. }));
        if is_leased {
            self.roster.update(clone, |slot| {
                slot.pulse.unresponsive_at = None;
                slot.state = State::Ready;
            });
        }
    }

    pub(super) fn end_leased(
        &mut self,
        clone: CloneKey,
        why: EndReason,
        effects: &mut Vec<Effect>,
    ) {
        if matches!(self.clone_state(clone), Some(State::Leased { .. })) {
            self.end(clone, why, effects);
        }
    }

    pub(super) fn renewed(&mut self, clone: CloneKey, ttl: Option<Duration>) {
        let new_end = ttl.map(|ttl| self.now.after(ttl));
        if matches!(self.clone_state(clone), Some(State::Leased { .. })) {
            let expires = new_end;
            self.roster
                .update(clone, |slot| slot.state = State::Leased { expires });
        }
    }

    pub(super) fn ended(&mut self, clone: CloneKey) {
        if self.clone_state(clone) == Some(State::Releasing) {
            self.roster.remove(clone);
        }
    }

    /// Ends a clone that has a process.
    pub(super) fn end(&mut self, clone: CloneKey, why: EndReason, effects: &mut Vec<Effect>) {
        let ended = self
            .roster
            .update(clone, |slot| slot.state = State::Releasing);
        if ended.is_some() {
            effects.push(Effect::End { clone, why });
        }
    }
}
