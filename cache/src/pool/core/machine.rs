//! One event, and everything that follows from it.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::drain::Drains;
use super::event::{Effect, EndReason, Event, Refusal, Terms};
use super::health::Health;
use super::ids::{CloneKey, Epoch, Moment, Ticket};
use super::index::Rules;
use super::pulse::SHORTEST_PACE;
use super::queue::{Queue, Waiter};
use super::roll::Roll;
use super::room::Room;
use super::roster::{Roster, Slot, State};
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
    /// Whether the guests of ready clones are asked for an answer: their virtual CPUs run.
    pub asks_ready: bool,
    /// How long a leased guest may leave a question unanswered until it is unresponsive, and again until it is ended;
    /// `None` asks none.
    pub guest_timeout: Option<Duration>,
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
    /// The shortest time between two questions to one guest.
    pub(super) pace: Duration,
    pub(super) last_question: Option<Moment>,
}

impl Core {
    /// A pool without a generation and without clones. The seed decides the jitter.
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        let mut core = Self {
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
            pace: SHORTEST_PACE,
            last_question: None,
        };
        core.set_rules();
        core
    }

    /// Tells the roster what its counts and orders go by.
    pub(super) fn set_rules(&mut self) {
        self.roster.set_rules(Rules {
            current: self.epoch,
            asks_ready: self.limits.asks_ready,
            guest_timeout: self.limits.guest_timeout,
        });
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
            Event::Answered { clone } => self.answered(clone, effects),
            Event::Silent { clone } => self.silent(clone, effects),
            Event::Stalled { clone } => self.stalled(clone, effects),
            Event::Returned { clone } => self.returned(clone),
            Event::Spoiled { clone } => self.end_leased(clone, EndReason::Spoiled, effects),
            Event::Renewed { clone, ttl } => self.renewed(clone, ttl),
            Event::Released { clone } => self.end_leased(clone, EndReason::Released, effects),
            Event::Ended { clone } => self.ended(clone),
            Event::Resized { target, max } => {
                self.limits.target = target;
                self.limits.max = max;
            }
            Event::Reconfigured { limits, renew } => {
                self.reconfigure(limits, renew, effects);
            }
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
        while let Some((at, clone)) = self.roster.index().next_due()
            && at <= now
        {
            self.is_due(clone, effects);
        }
        if self.course != Course::Stopped {
            self.ask_in_turn(effects);
        }
    }

    /// Something about this clone is due: its lease or the time for an answer is over, or it is too old.
    fn is_due(&mut self, clone: CloneKey, effects: &mut Vec<Effect>) {
        let now = self.now;
        match self.clone_state(clone) {
            Some(State::Leased { expires: Some(end) }) if end <= now => {
                self.end(clone, EndReason::Expired, effects);
            }
            Some(State::Leased { .. }) => self.is_overdue(clone, effects),
            Some(State::Ready | State::Launching | State::Releasing) | None => {
                self.roster.update(clone, |slot| slot.is_aged = true);
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
        let (now, is_heard) = (self.now, self.limits.asks_ready);
        let granted = self.roster.update(clone, |slot| {
            slot.state = State::Leased { expires };
            if !is_heard || slot.is_outdated {
                // Its checkout resumes it, and hears from it.
                slot.pulse.beats(now);
            }
        });
        if granted.is_some() {
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
        self.abandon_launches(|_| true, effects);
    }

    /// Gives up clones that are being made.
    pub(super) fn abandon_launches(
        &mut self,
        which: impl Fn(&Slot) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        let launching = |slot: &Slot| slot.state == State::Launching && which(slot);
        for clone in self.roster.those(launching) {
            self.roster
                .update(clone, |slot| slot.state = State::Releasing);
            effects.push(Effect::Abandon { clone });
        }
    }

    fn stop(&mut self, leave_leased: bool, effects: &mut Vec<Effect>) {
        self.close(Course::Stopped, effects);
        for clone in self.roster.those(|slot| slot.state != State::Releasing) {
            let state = self.roster.update(clone, |slot| {
                std::mem::replace(&mut slot.state, State::Releasing)
            });
            let why = EndReason::Stopped;
            effects.extend(state.map(|state| match state {
                State::Launching => Effect::Abandon { clone },
                State::Leased { .. } if leave_leased => Effect::Leave { clone },
                State::Ready | State::Leased { .. } | State::Releasing => {
                    Effect::End { clone, why }
                }
            }));
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
