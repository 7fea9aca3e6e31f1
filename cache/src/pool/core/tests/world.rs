//! A world for the core to live in: it carries out effects, and remembers what is true of every clone and checkout.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vmint_factory::Phase;

use crate::mint::Fault;
use crate::pool::core::{
    CloneKey, Core, Effect, EndReason, Epoch, Event, Limits, Moment, Refusal, Terms, Ticket,
};
use crate::request::OnEmpty;
use crate::view::Source;

pub(super) const LIMITS: Limits = Limits {
    target: 2,
    max: 6,
    refill: 2,
    queue: 8,
    max_age: None,
    asks_ready: false,
    guest_timeout: None,
    progress: Duration::from_secs(60),
};

/// What is true of a clone, whatever the core thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Launching,
    Proved,
    Granted(Ticket),
    Dead,
    Ending,
    Gone,
}

pub(super) struct World {
    pub core: Core,
    pub now: Duration,
    pub clones: BTreeMap<CloneKey, Truth>,
    pub epochs: BTreeMap<CloneKey, Epoch>,
    pub waiting: BTreeMap<Ticket, Duration>,
    pub granted: Vec<(Ticket, CloneKey, Source)>,
    pub refused: Vec<(Ticket, Refusal)>,
    pub pings: BTreeSet<CloneKey>,
    pub unresponsive: BTreeSet<CloneKey>,
    pub ends: BTreeMap<CloneKey, EndReason>,
    pub notes: Vec<String>,
    /// Since a refusal no launch may be tried before this, unless a later one succeeds or fails.
    pub no_launch_before: Duration,
    refused_last: CloneKey,
    next_ticket: u64,
    next_epoch: u64,
    /// Generations that the pool's ledger has: those with clones, and those that the core needed after some event.
    kept: BTreeSet<Epoch>,
}

impl World {
    /// A pool without a generation.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            core: Core::new(limits, 7),
            now: Duration::ZERO,
            clones: BTreeMap::new(),
            epochs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            granted: Vec::new(),
            refused: Vec::new(),
            pings: BTreeSet::new(),
            unresponsive: BTreeSet::new(),
            ends: BTreeMap::new(),
            notes: Vec::new(),
            no_launch_before: Duration::ZERO,
            refused_last: CloneKey(0),
            next_ticket: 0,
            next_epoch: 0,
            kept: BTreeSet::new(),
        }
    }

    /// A pool with a generation, filled.
    pub(super) fn filled(limits: Limits) -> Self {
        let mut world = Self::new(limits);
        world.publish();
        world.settle();
        world
    }

    pub(super) fn on(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.core.on(Moment::new(self.now), event);
        for effect in &effects {
            self.carry_out(effect);
        }
        self.forget();
        effects
    }

    /// What the ledger does with generations.
    fn forget(&mut self) {
        let alive = |epoch: Epoch| {
            let clones = self.clones.iter();
            let mut of_it = clones.filter(|(clone, _)| self.epochs[*clone] == epoch);
            of_it.any(|(_, truth)| *truth != Truth::Gone)
        };
        let kept = self.kept.iter().copied();
        self.kept = kept
            .filter(|epoch| self.core.needs(*epoch) || alive(*epoch))
            .collect();
    }

    /// The generations that are known.
    pub(super) fn known(&self) -> BTreeSet<Epoch> {
        self.kept.clone()
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Launch { clone, epoch, .. } => {
                assert!(
                    self.now >= self.no_launch_before,
                    "launched in the pause after a refusal"
                );
                assert_eq!(
                    self.clones.insert(*clone, Truth::Launching),
                    None,
                    "a key was used twice"
                );
                self.epochs.insert(*clone, *epoch);
            }
            Effect::Abandon { clone } => {
                assert_eq!(
                    self.clones.insert(*clone, Truth::Ending),
                    Some(Truth::Launching)
                );
            }
            Effect::Grant {
                ticket,
                clone,
                source,
            } => {
                let before = self.clones.insert(*clone, Truth::Granted(*ticket));
                assert_eq!(
                    before,
                    Some(Truth::Proved),
                    "granted a clone that is not proved, alive and unused"
                );
                let is_first = self.waiting.keys().all(|other| other >= ticket);
                assert!(is_first, "{ticket:?} was served out of turn");
                self.answered(*ticket);
                self.granted.push((*ticket, *clone, *source));
            }
            Effect::Refuse { ticket, why } => {
                self.answered(*ticket);
                self.refused.push((*ticket, *why));
            }
            Effect::Ping { clone } => {
                assert!(self.pings.insert(*clone), "{clone:?} is asked twice");
            }
            Effect::Unresponsive { clone } => {
                assert!(matches!(
                    self.clones[clone],
                    Truth::Granted(_) | Truth::Dead
                ));
                self.unresponsive.insert(*clone);
            }
            Effect::Responsive { clone } => {
                assert!(
                    self.unresponsive.remove(clone),
                    "{clone:?} was not unresponsive"
                );
            }
            Effect::End { clone, why } => {
                let before = self.clones.insert(*clone, Truth::Ending);
                assert!(
                    !matches!(before, None | Some(Truth::Gone)),
                    "ended a clone that is gone"
                );
                self.ends.insert(*clone, *why);
            }
            Effect::Leave { clone } => {
                let before = self.clones.insert(*clone, Truth::Ending);
                assert!(
                    matches!(before, Some(Truth::Granted(_) | Truth::Dead)),
                    "left a clone that nobody has"
                );
            }
            Effect::Rebuild { epoch, .. } => self.notes.push(format!("rebuild {}", epoch.0)),
            Effect::Rolls { from, to } => {
                self.notes.push(format!("rolls {} {}", from.0, to.0));
            }
            Effect::Rolled { to } => self.notes.push(format!("rolled {}", to.0)),
            Effect::RollBack {
                given_up,
                back_to,
                reason,
            } => {
                let (given_up, back_to) = (given_up.0, back_to.0);
                let note = format!("back from {given_up} to {back_to}: {reason}");
                self.notes.push(note);
            }
            Effect::Degraded { reason } => self.notes.push(format!("degraded: {reason}")),
            Effect::Recovered => self.notes.push("recovered".to_owned()),
            Effect::OutOfRoom { reason } => self.notes.push(format!("out of room: {reason}")),
            Effect::RoomAgain => {
                self.no_launch_before = Duration::ZERO;
                self.notes.push("room again".to_owned());
            }
        }
    }

    fn answered(&mut self, ticket: Ticket) {
        assert!(
            self.waiting.remove(&ticket).is_some(),
            "answered {ticket:?}, which does not wait"
        );
    }

    /// A checkout that waits up to ten seconds.
    pub(super) fn checkout(&mut self, on_empty: OnEmpty) -> Ticket {
        self.checkout_for(on_empty, Duration::from_secs(10), None)
    }

    pub(super) fn checkout_for(
        &mut self,
        on_empty: OnEmpty,
        wait: Duration,
        ttl: Option<Duration>,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let deadline = self.now + wait;
        self.waiting.insert(ticket, deadline);
        let terms = Terms {
            on_empty,
            deadline: Moment::new(deadline),
            ttl,
            again: false,
        };
        self.on(Event::Checkout { ticket, terms });
        ticket
    }

    /// A new generation, on trial.
    pub(super) fn publish(&mut self) -> Epoch {
        let epoch = Epoch(self.next_epoch);
        self.next_epoch += 1;
        self.kept.insert(epoch);
        let on_trial = true;
        self.on(Event::Published { epoch, on_trial });
        epoch
    }

    fn was_admitted(&mut self, clone: CloneKey) {
        if clone > self.refused_last {
            self.no_launch_before = Duration::ZERO;
        }
    }

    /// A generation that is to be used whatever comes.
    pub(super) fn go_back_to(&mut self, epoch: Epoch) {
        let on_trial = false;
        self.on(Event::Published { epoch, on_trial });
    }

    /// Clones of a generation, whatever becomes of them.
    pub(super) fn of(&self, epoch: Epoch, clones: &[CloneKey]) -> Vec<CloneKey> {
        let is_of = |clone: &&CloneKey| self.epochs[*clone] == epoch;
        clones.iter().filter(is_of).copied().collect()
    }

    pub(super) fn launch_succeeds(&mut self, clone: CloneKey) {
        self.was_admitted(clone);
        if self.clones.get(&clone) == Some(&Truth::Launching) {
            self.clones.insert(clone, Truth::Proved);
        }
        self.on(Event::Launched { clone });
    }

    pub(super) fn launch_fails(&mut self, clone: CloneKey, damage: bool) {
        let fault = if damage {
            Fault::Generation
        } else {
            Fault::Clone
        };
        self.launch_fails_by(clone, fault);
    }

    pub(super) fn launch_fails_by(&mut self, clone: CloneKey, fault: Fault) {
        self.was_admitted(clone);
        self.clones.insert(clone, Truth::Gone);
        self.on(Event::LaunchFailed {
            clone,
            phase: Phase::Load,
            fault,
            reason: "no".to_owned(),
        });
    }

    /// There is no memory for it.
    pub(super) fn launch_is_refused(&mut self, clone: CloneKey) {
        self.clones.insert(clone, Truth::Gone);
        self.no_launch_before = self.now + Duration::from_secs(1);
        self.refused_last = clone;
        self.on(Event::NoRoom {
            clone,
            reason: "1 + 1 > 1".to_owned(),
        });
    }

    /// Somebody gave memory back.
    pub(super) fn room_is_freed(&mut self) {
        self.no_launch_before = Duration::ZERO;
        self.on(Event::RoomFreed);
    }

    /// The process of a clone is gone, if it has one.
    pub(super) fn dies(&mut self, clone: CloneKey) {
        if matches!(
            self.clones.get(&clone),
            Some(Truth::Proved | Truth::Granted(_))
        ) {
            self.clones.insert(clone, Truth::Dead);
        }
        self.on(Event::Died { clone });
    }

    pub(super) fn end_is_done(&mut self, clone: CloneKey) {
        self.clones.insert(clone, Truth::Gone);
        self.on(Event::Ended { clone });
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(wake) = self
            .core
            .next_wake()
            .map(Moment::since_start)
            .filter(|wake| *wake <= until)
        {
            self.now = self.now.max(wake);
            self.on(Event::Tick);
            self.answer_pings();
        }
        self.now = until;
        self.on(Event::Tick);
    }

    fn answer_pings(&mut self) {
        for clone in std::mem::take(&mut self.pings) {
            self.on(Event::Answered { clone });
        }
    }

    /// Lets everything that is under way succeed, until nothing is.
    pub(super) fn settle(&mut self) {
        for _ in 0..1_000 {
            let Some((clone, truth)) = self.under_way() else {
                return;
            };
            if truth == Truth::Launching {
                self.launch_succeeds(clone)
            } else {
                self.end_is_done(clone)
            }
        }
        panic!("the pool does not come to rest");
    }

    pub(super) fn under_way(&self) -> Option<(CloneKey, Truth)> {
        let mut all = self.clones.iter().map(|(clone, truth)| (*clone, *truth));
        all.find(|(_, truth)| matches!(truth, Truth::Launching | Truth::Ending))
    }

    pub(super) fn those(&self, is: impl Fn(Truth) -> bool) -> Vec<CloneKey> {
        self.clones
            .iter()
            .filter(|(_, truth)| is(**truth))
            .map(|(clone, _)| *clone)
            .collect()
    }

    pub(super) fn launching(&self) -> Vec<CloneKey> {
        self.those(|truth| truth == Truth::Launching)
    }

    pub(super) fn ready(&self) -> Vec<CloneKey> {
        self.those(|truth| truth == Truth::Proved)
    }

    pub(super) fn leased(&self) -> Vec<CloneKey> {
        self.those(|truth| matches!(truth, Truth::Granted(_)))
    }

    /// Who got what, in the order of the grants.
    pub(super) fn served(&self) -> Vec<(u64, Source)> {
        self.granted
            .iter()
            .map(|(ticket, _, source)| (ticket.0, *source))
            .collect()
    }
}
