//! One event, and everything that follows from it.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::drain::Drains;
use super::event::{Effect, EndReason, Event, Refusal, Terms};
use super::health::Health;
use super::ids::{CloneKey, Epoch, Moment, Ticket};
use super::queue::{Queue, Waiter};
use super::roll::Roll;
use super::room::Room;
use super::roster::{Ping, Roster, State};
use crate::request::OnEmpty;
use crate::view::Source;

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
    /// How long a new generation may have a clone under way, and get none ready, before it is given up.
    pub progress: Duration,
}

/// How far the pool is on its way to its end: it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Course {
    /// It works.
    Open,
    /// Checkouts are refused and nothing is made.
    Closed,
    /// The same, and what is unused ends.
    Withdrawn,
    /// Everything ends.
    Stopped,
}

/// The state of one pool.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    pub(super) limits: Limits,
    pub(super) course: Course,
    pub(super) drains: Drains,
    pub(super) epoch: Option<Epoch>,
    pub(super) roll: Option<Roll>,
    pub(super) roster: Roster,
    pub(super) queue: Queue,
    pub(super) health: Health,
    pub(super) room: Room,
    pub(super) now: Moment,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) was_filled: bool,
    pub(super) rng: StdRng,
}

impl Core {
    /// A pool without a generation and without clones. The seed decides the jitter.
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            course: Course::Open,
            drains: Drains::default(),
            epoch: None,
            roll: None,
            roster: Roster::default(),
            queue: Queue::new(limits.queue),
            health: Health::default(),
            room: Room::default(),
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
        self.watch_roll(&mut effects);
        self.notice_filled();
        effects
    }

    fn take(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Published { epoch, on_trial } => self.published(epoch, on_trial, effects),
            Event::Checkout { ticket, terms } => self.checkout(ticket, terms, effects),
            Event::HungUp { ticket } => self.queue.remove(ticket),
            Event::Launched { clone } => self.launched(clone, effects),
            Event::LaunchFailed {
                clone,
                phase,
                fault,
                reason,
            } => {
                self.launch_failed(clone, (phase, fault, &reason), effects);
            }
            Event::NoRoom { clone, reason } => self.no_room(clone, reason, effects),
            Event::RoomFreed => self.room.freed(),
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
            Event::Reconfigured { limits, renew } => self.reconfigure(limits, renew),
            Event::Discarded => self.discard(effects),
            Event::Tick => {}
            Event::Drain { whose } => self.drain(whose, effects),
            Event::Resume { whose } => self.drains.set(whose, false),
            Event::Closed => self.close(Course::Closed, effects),
            Event::Withdrawn => self.withdraw(effects),
            Event::Stopped { leave_leased } => self.stop(leave_leased, effects),
        }
    }

    /// Everything whose time has come: deadlines of checkouts, ends of leases, pings.
    fn take_due(&mut self, effects: &mut Vec<Effect>) {
        let now = self.now;
        self.give_up_when_overdue(effects);
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
        if let Some(why) = self.refuses_all() {
            effects.push(Effect::Refuse { ticket, why });
            return;
        }
        let waiter = Waiter { ticket, terms };
        let at_once = self
            .queue
            .is_empty()
            .then(|| self.next_to_grant())
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

    fn close(&mut self, course: Course, effects: &mut Vec<Effect>) {
        self.course = self.course.max(course);
        self.refuse_waiters(Refusal::Closed, effects);
    }

    /// Why no checkout gets anything, where that is so.
    fn refuses_all(&self) -> Option<Refusal> {
        match self.course {
            Course::Open => self.is_draining().then_some(Refusal::Draining),
            Course::Closed | Course::Withdrawn | Course::Stopped => Some(Refusal::Closed),
        }
    }

    pub(super) fn refuse_waiters(&mut self, why: Refusal, effects: &mut Vec<Effect>) {
        for waiter in self.queue.take_all() {
            let ticket = waiter.ticket;
            effects.push(Effect::Refuse { ticket, why });
        }
    }

    /// Unused clones end with what follows from every event (see `supply.rs`).
    fn withdraw(&mut self, effects: &mut Vec<Effect>) {
        self.close(Course::Withdrawn, effects);
        for (clone, slot) in self.roster.iter_mut() {
            if slot.state == State::Launching {
                slot.state = State::Releasing;
                effects.push(Effect::Abandon { clone });
            }
        }
    }

    fn stop(&mut self, leave_leased: bool, effects: &mut Vec<Effect>) {
        self.close(Course::Stopped, effects);
        for (clone, slot) in self.roster.iter_mut() {
            match slot.state {
                State::Launching => effects.push(Effect::Abandon { clone }),
                State::Leased { .. } if leave_leased => effects.push(Effect::Leave { clone }),
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
        let filled = tally.ready() + tally.leased;
        // As far as the memory goes is as far as it can be.
        let is_all = self.room.is_short() && tally.in_flight() == 0 && filled > 0;
        self.was_filled |= self.epoch.is_some() && (filled >= self.limits.target || is_all);
    }
}
