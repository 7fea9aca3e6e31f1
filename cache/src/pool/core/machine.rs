//! One event, and everything that follows from it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vmint_factory::Phase;

use super::event::{Effect, EndReason, Event, Refusal, Terms};
use super::health::Health;
use super::ids::{CloneKey, Epoch, Moment, Ticket};
use super::queue::{Queue, Waiter};
use super::roster::{Ping, Roster, Slot, State, Tally};
use crate::request::OnEmpty;
use crate::view::Source;

/// How much earlier than `max_age` a clone may be replaced, as a share of it: clones that were made together are not
/// all replaced together.
const AGE_STAGGER: f64 = 0.2;

/// The sizes and times that a pool keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Clones to keep ready.
    pub target: usize,
    /// Clones alive at most.
    pub max: usize,
    /// Clones being made at the same time to refill.
    pub refill: usize,
    /// Checkouts waiting at most.
    pub queue: usize,
    /// An unused clone older than this is replaced.
    pub max_age: Option<Duration>,
    /// A ready clone's guest is asked for a sign of life this often; `None` while its virtual CPUs stand still.
    pub ping_every: Option<Duration>,
}

/// How far the pool is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It works.
    Open,
    /// Checkouts are refused and nothing is made.
    Closed,
    /// Everything ends.
    Stopped,
}

/// The state of one pool.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    pub(super) limits: Limits,
    pub(super) course: Course,
    pub(super) epoch: Option<Epoch>,
    pub(super) roster: Roster,
    pub(super) queue: Queue,
    pub(super) health: Health,
    pub(super) now: Moment,
    hits: u64,
    misses: u64,
    was_filled: bool,
    rng: StdRng,
}

impl Core {
    /// A pool without a generation and without clones. The seed decides the jitter.
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            course: Course::Open,
            epoch: None,
            roster: Roster::default(),
            queue: Queue::new(limits.queue),
            health: Health::default(),
            now: Moment::default(),
            hits: 0,
            misses: 0,
            was_filled: false,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Takes one event, and says what is to be done: in this order.
    pub(crate) fn on(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        self.take_due(&mut effects);
        self.take(event, &mut effects);
        self.balance(&mut effects);
        self.notice_filled();
        effects
    }

    /// When `on` must be called again at the latest, if nothing happens before.
    pub(crate) fn next_wake(&self) -> Option<Moment> {
        let clones = self.roster.iter().filter_map(|(_, slot)| match slot.state {
            State::Ready { ping } => {
                let ping = if let Ping::Due(due) = ping {
                    Some(due)
                } else {
                    None
                };
                earliest(ping, slot.best_before.filter(|end| *end > self.now))
            }
            State::Leased { expires } => expires,
            State::Launching | State::Releasing => None,
        });
        let others = [self.queue.next_deadline(), self.health.pause_ends(self.now)];
        clones.chain(others.into_iter().flatten()).min()
    }

    /// The sizes that hold now.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many clones there are of each kind.
    pub(crate) fn tally(&self) -> Tally {
        self.roster.tally(self.now, self.epoch)
    }

    /// All living clones, oldest first.
    pub(crate) fn clones(&self) -> impl Iterator<Item = (CloneKey, &Slot)> {
        self.roster.iter()
    }

    /// One living clone.
    pub(crate) fn clone_state(&self, clone: CloneKey) -> Option<State> {
        self.roster.get(clone).map(|slot| slot.state)
    }

    /// How many checkouts wait.
    pub(crate) fn waiters(&self) -> usize {
        self.queue.len()
    }

    /// Checkouts that found a ready clone, and those that found none.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// Why clones cannot be made at present.
    pub(crate) fn degraded(&self) -> Option<&str> {
        self.health.degraded()
    }

    /// Whether the pool ever had as many clones as it is to keep.
    pub(crate) fn was_filled(&self) -> bool {
        self.was_filled
    }

    /// How long launches pause yet after a failure.
    pub(crate) fn pause(&self) -> Duration {
        self.health
            .pause_ends(self.now)
            .map_or(Duration::ZERO, |end| end.since(self.now))
    }

    /// Whether it was stopped, and everything has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.course == Course::Stopped && self.roster.iter().next().is_none()
    }

    fn take(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Published { epoch } => {
                self.epoch = Some(epoch);
                self.health.new_generation();
            }
            Event::Checkout { ticket, terms } => self.checkout(ticket, terms, effects),
            Event::HungUp { ticket } => self.queue.remove(ticket),
            Event::Launched { clone } => self.launched(clone, effects),
            Event::LaunchFailed {
                clone,
                phase,
                damage,
                reason,
            } => {
                self.launch_failed(clone, phase, damage, &reason, effects);
            }
            Event::Died { clone } => self.died(clone, effects),
            Event::Answered { clone } => self.answered(clone),
            Event::Silent { clone } => self.silent(clone, effects),
            Event::Returned { clone } => self.returned(clone),
            Event::Spoiled { clone } => self.end_leased(clone, EndReason::Spoiled, effects),
            Event::Renewed { clone, ttl } => self.renewed(clone, ttl),
            Event::Released { clone } => self.end_leased(clone, EndReason::Released, effects),
            Event::Ended { clone } => self.ended(clone),
            Event::Resized { target, max } => {
                self.limits.target = target;
                self.limits.max = max;
            }
            Event::Tick => {}
            Event::Closed => self.close(Course::Closed, effects),
            Event::Stopped => self.stop(effects),
        }
    }

    /// Everything whose time has come: deadlines of checkouts, ends of leases, pings.
    fn take_due(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now;
        for waiter in self.queue.take_overdue(now) {
            effects.push(Effect::Refuse {
                ticket: waiter.ticket,
                why: Refusal::Empty,
            });
        }
        for (clone, slot) in self.roster.iter_mut() {
            match slot.state {
                State::Leased { expires: Some(end) } if end <= now => {
                    slot.state = State::Releasing;
                    effects.push(Effect::End {
                        clone,
                        why: EndReason::Expired,
                    });
                }
                State::Ready {
                    ping: Ping::Due(due),
                } if due <= now => {
                    slot.state = State::Ready { ping: Ping::Asked };
                    effects.push(Effect::Ping { clone });
                }
                State::Launching
                | State::Ready { .. }
                | State::Leased { .. }
                | State::Releasing => {}
            }
        }
    }

    fn checkout(&mut self, ticket: Ticket, terms: Terms, effects: &mut Vec<Effect>) {
        if self.course != Course::Open {
            effects.push(Effect::Refuse {
                ticket,
                why: Refusal::Closed,
            });
            return;
        }
        let waiter = Waiter { ticket, terms };
        let at_once = self
            .queue
            .is_empty()
            .then(|| self.roster.best_ready(self.now, self.epoch))
            .flatten();
        if !terms.again {
            self.hits += u64::from(at_once.is_some());
            self.misses += u64::from(at_once.is_none());
        }
        match at_once {
            Some(clone) => self.grant(waiter, clone, Source::Pool, effects),
            None if terms.on_empty == OnEmpty::Fail || terms.deadline <= self.now => {
                effects.push(Effect::Refuse {
                    ticket,
                    why: Refusal::Empty,
                });
            }
            None if self.queue.is_full() && !terms.again => {
                effects.push(Effect::Refuse {
                    ticket,
                    why: Refusal::QueueFull,
                });
            }
            None => self.queue.push(waiter),
        }
    }

    /// Leases a ready clone to a checkout.
    pub(super) fn grant(
        &mut self,
        waiter: Waiter,
        clone: CloneKey,
        source: Source,
        effects: &mut Vec<Effect>,
    ) {
        let expires = waiter.terms.ttl.map(|ttl| self.now.after(ttl));
        if let Some(slot) = self.roster.get_mut(clone) {
            slot.state = State::Leased { expires };
            effects.push(Effect::Grant {
                ticket: waiter.ticket,
                clone,
                source,
            });
        }
    }

    fn launched(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        let Some(slot) = self.roster.get(clone) else {
            return;
        };
        match slot.state {
            State::Launching => {
                let epoch = slot.epoch;
                self.make_ready(clone);
                if self.epoch == Some(epoch) && self.health.succeeded(epoch) {
                    effects.push(Effect::Recovered);
                }
            }
            // It was given up while its success was on its way here.
            State::Releasing => effects.push(Effect::End {
                clone,
                why: EndReason::Stopped,
            }),
            State::Ready { .. } | State::Leased { .. } => {}
        }
    }

    fn make_ready(&mut self, clone: CloneKey) {
        let best_before = self.limits.max_age.map(|age| {
            let share = 1.0 - AGE_STAGGER * self.rng.random::<f64>();
            self.now.after(age.mul_f64(share))
        });
        let ping = self.first_ping();
        if let Some(slot) = self.roster.get_mut(clone) {
            slot.best_before = best_before;
            slot.state = State::Ready { ping };
        }
    }

    /// The first ping of a ready clone comes earlier than the others by a random share, so that they spread.
    fn first_ping(&mut self) -> Ping {
        match self.limits.ping_every {
            None => Ping::Never,
            Some(every) => Ping::Due(
                self.now
                    .after(every.mul_f64(1.0 - 0.5 * self.rng.random::<f64>())),
            ),
        }
    }

    fn launch_failed(
        &mut self,
        clone: CloneKey,
        phase: Phase,
        damage: bool,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.roster.get(clone) else {
            return;
        };
        let epoch = slot.epoch;
        let was_wanted = match slot.state {
            State::Launching => true,
            State::Releasing => false,
            State::Ready { .. } | State::Leased { .. } => return,
        };
        self.roster.remove(clone);
        if !was_wanted || self.epoch != Some(epoch) || self.health.is_damaged(epoch) {
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

    fn died(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        match self.clone_state(clone) {
            Some(State::Ready { .. } | State::Leased { .. }) => {
                self.end(clone, EndReason::Died, effects)
            }
            // While it is made, its launch says so; while it is ended, its end does.
            Some(State::Launching | State::Releasing) | None => {}
        }
    }

    fn answered(&mut self, clone: CloneKey) {
        let due = self
            .limits
            .ping_every
            .map_or(Ping::Never, |every| Ping::Due(self.now.after(every)));
        if let Some(Slot {
            state: State::Ready {
                ping: ping @ Ping::Asked,
            },
            ..
        }) = self.roster.get_mut(clone)
        {
            *ping = due;
        }
    }

    fn silent(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        // A leased guest may be as silent as it likes, and one that was returned meanwhile is asked again.
        if self.clone_state(clone) == Some(State::Ready { ping: Ping::Asked }) {
            self.end(clone, EndReason::Silent, effects);
        }
    }

    fn returned(&mut self, clone: CloneKey) {
        let ping = self
            .limits
            .ping_every
            .map_or(Ping::Never, |_| Ping::Due(self.now));
        if let Some(
            slot @ Slot {
                state: State::Leased { .. },
                ..
            },
        ) = self.roster.get_mut(clone)
        {
            slot.state = State::Ready { ping };
        }
    }

    fn end_leased(&mut self, clone: CloneKey, why: EndReason, effects: &mut Vec<Effect>) {
        if matches!(self.clone_state(clone), Some(State::Leased { .. })) {
            self.end(clone, why, effects);
        }
    }

    fn renewed(&mut self, clone: CloneKey, ttl: Option<Duration>) {
        let new_end = ttl.map(|ttl| self.now.after(ttl));
        if let Some(Slot {
            state: State::Leased { expires },
            ..
        }) = self.roster.get_mut(clone)
        {
            *expires = new_end;
        }
    }

    fn ended(&mut self, clone: CloneKey) {
        if self.clone_state(clone) == Some(State::Releasing) {
            self.roster.remove(clone);
        }
    }

    /// Ends a clone that has a process.
    pub(super) fn end(&mut self, clone: CloneKey, why: EndReason, effects: &mut Vec<Effect>) {
        if let Some(slot) = self.roster.get_mut(clone) {
            slot.state = State::Releasing;
            effects.push(Effect::End { clone, why });
        }
    }

    fn close(&mut self, course: Course, effects: &mut Vec<Effect>) {
        if self.course != Course::Stopped {
            self.course = course;
        }
        for waiter in self.queue.take_all() {
            effects.push(Effect::Refuse {
                ticket: waiter.ticket,
                why: Refusal::Closed,
            });
        }
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.close(Course::Stopped, effects);
        for (clone, slot) in self.roster.iter_mut() {
            match slot.state {
                State::Launching => effects.push(Effect::Abandon { clone }),
                State::Ready { .. } | State::Leased { .. } => {
                    effects.push(Effect::End {
                        clone,
                        why: EndReason::Stopped,
                    });
                }
                State::Releasing => {}
            }
            slot.state = State::Releasing;
        }
    }

    fn notice_filled(&mut self) {
        let tally = self.tally();
        self.was_filled |=
            self.epoch.is_some() && tally.ready() + tally.leased >= self.limits.target;
    }
}

fn earliest(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    a.into_iter().chain(b).min()
}
