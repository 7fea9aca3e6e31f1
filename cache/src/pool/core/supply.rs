//! Supply and demand: whom to serve, what to make, and what to end. It runs after every event, so a refill begins with
//! the checkout that caused it.
//!
//! How many clones are wanted: `target`, and one for each waiting checkout. A ready clone that is to be replaced (too
//! old, of an older generation, made with settings that hold no longer) does not count, so its replacement is made first, and it ends when that is ready.
//!
//! How many are made at the same time: `refill`, and one for each waiting checkout that wants a clone made for it; after
//! a failure a single one, until one has succeeded. All within `max`.
//!
//! A checkout that only waits is served by the refill. In a pool of `target` 0 nothing would ever be refilled, so there
//! its clone is made for it as well.
//!
//! Where the host has no memory for another clone, launches pause until some is free, and checkouts wait.
//!
//! While a new generation is doubted (`roll.rs`), the refill goes on from the one before, and all that is ready counts; one
//! clone of the new generation is made beside it. A pool that drains wants nothing.
//!
//! A degraded pool always tries to make one, wanted or not: nobody sends checkouts to a service that is not ready, so
//! nobody would ever find out that clones can be made again.

use super::event::{Effect, EndReason};
use super::ids::{CloneKey, Epoch};
use super::machine::{Core, Course};
use super::roster::Tally;
use crate::request::OnEmpty;
use crate::view::Source;

impl Core {
    /// Serves, ends and makes, until supply meets demand as far as the limits allow.
    pub(super) fn balance(&mut self, effects: &mut Vec<Effect>) {
        if self.course == Course::Stopped {
            return;
        }
        self.serve(effects);
        self.trim(effects);
        if self.course != Course::Open || self.is_draining() {
            self.forget_shortage(effects);
            return;
        }
        if let Some(epoch) = self.on_trial()
            && self.room.allows(self.now)
        {
            self.try_one(epoch, effects);
        }
        if let Some(epoch) = self.supplier()
            && self.health.allows(self.now, epoch)
            && self.room.allows(self.now)
        {
            self.launch(epoch, effects);
        }
        self.make_room(effects);
        self.forget_shortage(effects);
    }

    /// Gives ready clones to waiting checkouts, first come, first served.
    fn serve(&mut self, effects: &mut Vec<Effect>) {
        while !self.queue.is_empty()
            && let Some(clone) = self.next_to_grant()
            && let Some(waiter) = self.queue.pop()
        {
            let made_for_it = waiter.terms.on_empty == OnEmpty::Clone || self.limits.target == 0;
            let source = if made_for_it {
                Source::Clone
            } else {
                Source::Pool
            };
            self.grant(waiter, clone, source, effects);
        }
    }

    /// The ready clone to grant next.
    pub(super) fn next_to_grant(&self) -> Option<CloneKey> {
        let uses_up = self.uses_up_old_ones();
        self.roster.index().best_ready(uses_up)
    }

    /// Ends ready clones that are more than wanted: those to be replaced first, then the oldest.
    fn trim(&mut self, effects: &mut Vec<Effect>) {
        let tally = self.tally();
        let unwanted = tally.ready().saturating_sub(self.target());
        let beyond_max = tally.staying().saturating_sub(self.limits.max);
        for _ in 0..unwanted.max(beyond_max).min(tally.ready()) {
            self.end_worst(effects);
        }
    }

    /// Makes a clone of the generation that is on trial, beside all others: one at a time.
    fn try_one(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        let tally = self.tally();
        let has_room = tally.alive() < self.limits.max;
        if self.trial_is_due() && tally.launching == 0 && has_room {
            let clone = self.roster.begin(self.now, epoch);
            effects.push(Effect::Launch {
                clone,
                epoch,
                urgent: false,
            });
        }
    }

    /// Begins as many launches as are wanted and allowed.
    fn launch(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        let tally = self.tally();
        let room = self.limits.max.saturating_sub(tally.alive());
        let under_way = self.under_way(&tally);
        let slots = self.at_once().saturating_sub(under_way);
        let waiting = self.queue.len().saturating_sub(under_way);
        for nth in 0..self.wanted(&tally).min(room).min(slots) {
            let clone = self.roster.begin(self.now, epoch);
            effects.push(Effect::Launch {
                clone,
                epoch,
                urgent: nth < waiting,
            });
        }
    }

    /// Where `max` or the host's memory leaves no room to make the replacement first, ends one clone that is to be
    /// replaced: one, and only when nothing is under way that would make room or replace it anyway.
    fn make_room(&mut self, effects: &mut Vec<Effect>) {
        let tally = self.tally();
        let is_quiet = tally.in_flight() == 0 && tally.releasing == 0;
        let may_replace = match self.on_trial() {
            Some(_) => self.trial_is_due(),
            None => {
                let allowed = |epoch| self.health.allows(self.now, epoch);
                self.wanted(&tally) > 0 && self.epoch.is_some_and(allowed)
            }
        };
        let is_full = tally.alive() == self.limits.max || self.room.is_short();
        if is_quiet && tally.stale > 0 && may_replace && is_full {
            self.end_worst(effects);
        }
    }

    /// Clones that are being made for the refill. The one on trial comes on top of them.
    fn under_way(&self, tally: &Tally) -> usize {
        match self.on_trial() {
            Some(_) => tally.launching_old + tally.launching.saturating_sub(1),
            None => tally.in_flight(),
        }
    }

    /// Clones that are wanted beyond those that are ready or being made.
    pub(super) fn wanted(&self, tally: &Tally) -> usize {
        if self.on_trial().is_some() {
            let supply = tally.launching_old + tally.ready();
            return (self.limits.target + self.queue.len()).saturating_sub(supply);
        }
        let waiting = self.queue.len().saturating_sub(tally.launching_old);
        let wanted = (self.limits.target + waiting).saturating_sub(tally.launching + tally.fresh);
        let probe = usize::from(self.health.degraded().is_some() && tally.in_flight() == 0);
        wanted.max(probe)
    }

    /// Launches that may run at the same time.
    fn at_once(&self) -> usize {
        if self.health.is_probing() {
            1
        } else {
            self.limits.refill.max(1) + self.queue.wanting_a_clone()
        }
    }

    fn end_worst(&mut self, effects: &mut Vec<Effect>) {
        if let Some(clone) = self.roster.index().worst_ready() {
            let why = self.why_to_do_without(clone);
            self.end(clone, why, effects);
        }
    }

    fn why_to_do_without(&self, clone: CloneKey) -> EndReason {
        match self.roster.get(clone) {
            _ if self.course == Course::Withdrawn => EndReason::Withdrawn,
            Some(_) if self.is_draining() => EndReason::Drained,
            Some(slot) if self.epoch != Some(slot.epoch) => EndReason::OldGeneration,
            Some(slot) if slot.is_outdated => EndReason::OldSettings,
            Some(slot) if slot.is_aged => EndReason::TooOld,
            Some(_) | None => EndReason::Surplus,
        }
    }
}
