//! The one task that owns a pool: it hears what happens, asks the core, and has done what the core wants.
//!
//! ```text
//!   checkouts, renewals, releases ──┐                        ┌── grants, answers
//!   launches, pings, ends, deaths ──┼──> inbox ──> core.on ──┼── tasks: launch, ping, end, watch
//!   the core's next moment ─────────┘                        └── registry of sandboxes
//! ```
//! It never waits for anything but its inbox and the next moment, so a slow clone delays nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;
use vmint_factory::GenerationId;

use super::core::{CloneKey, Drain, Effect, Event, State, Terms, Ticket};
use super::grant::Grant;
use super::handle::{Pool, limits, size};
use super::ledger::Ledger;
use super::message::{Ask, Inbox, LeaseTimes, Message, Outbox, Refused, Renewed, Sizes};
use super::{alive, tasks};
use crate::asking::Share;
use crate::mint::{CloneFailure, LiveClone, LiveGeneration};
use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::spec::PoolSpec;
use crate::sync::lock;
use crate::uniqueness::Unique;

/// What a pool finds out about generations.
pub(crate) enum Report {
    /// Clones cannot be made from this one: it is damaged.
    Damaged {
        generation: GenerationId,
        reason: String,
    },
    /// The pool goes over to another one.
    Rolls {
        from: GenerationId,
        to: GenerationId,
    },
    /// The pool is over on this one.
    Rolled { generation: GenerationId },
    /// Clones cannot be made from one on trial: the pool has gone back.
    RolledBack {
        given_up: GenerationId,
        back_to: Arc<dyn LiveGeneration>,
        reason: String,
    },
}

/// Is told what a pool finds out. It must return at once.
pub(crate) type Reports = Box<dyn Fn(Report) + Send>;

type Answer = oneshot::Sender<Result<Grant, Refused>>;

/// A checkout that was not answered yet.
pub(super) struct Pending {
    pub answer: Answer,
    pub ttl: Option<Duration>,
}

/// Owns one pool.
pub(super) struct Actor {
    pub node: Arc<Node>,
    pub pool: Pool,
    /// As of the last word: the pool's own may be newer for a moment.
    pub spec: Arc<PoolSpec>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub inbox: Inbox,
    pub outbox: Outbox,
    pub reports: Reports,
    pub work: Work,
    /// Its guests among all that are asked in turn.
    pub asking: Share,
}

/// What the actor has under way.
#[derive(Default)]
pub(super) struct Work {
    pub checkouts: HashMap<Ticket, Pending>,
    pub launches: HashMap<CloneKey, CancellationToken>,
    pub releases: HashMap<CloneKey, oneshot::Sender<()>>,
}

impl Actor {
    pub(super) fn new(
        node: Arc<Node>,
        (pool, spec): (Pool, Arc<PoolSpec>),
        ledger: Arc<Mutex<Ledger>>,
        (outbox, inbox): (Outbox, Inbox),
        reports: Reports,
    ) -> Self {
        Self {
            asking: node.asking.share(),
            node,
            pool,
            spec,
            ledger,
            inbox,
            outbox,
            reports,
            work: Work::default(),
        }
    }

    /// Works until everything has ended after a stop, or after the template was removed.
    pub(super) async fn run(mut self) {
        let mut freed = self.node.memory.freed();
        let over = self.pool.over().clone();
        let ledger = Arc::clone(&self.ledger);
        let look = alive::look(ledger, self.outbox.clone(), over.clone());
        self.node.supervise("the look at hypervisors", look);
        let _over = over.drop_guard();
        while !self.is_finished() {
            let (wake, is_short) = {
                let ledger = lock(&self.ledger);
                let is_short = ledger.core.short_of_memory().is_some();
                (ledger.next_wake(), is_short)
            };
            tokio::select! {
                // None cannot be: the actor holds a sender itself.
                message = self.inbox.recv() => message.into_iter().for_each(|message| self.take(message)),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.happened(Event::Tick),
                // Memory is given back with every clone of the node that ends: only a pool that waits for it hears of it.
                Ok(()) = freed.changed(), if is_short => self.happened(Event::RoomFreed),
            }
        }
        lock(&self.ledger).forget_generations();
    }

    fn is_finished(&self) -> bool {
        lock(&self.ledger).core.is_finished()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Checkout { ticket, ask, reply } => self.checkout(ticket, ask, reply),
            Message::Launched { clone, vm, unique } => self.launched(clone, vm, unique),
            Message::LaunchFailed { clone, failure } => self.launch_failed(clone, &failure),
            Message::Happened(event) => self.happened(event),
            Message::Renew { clone, ttl, reply } => {
                if let Err(unheard) = reply.send(self.renew(clone, ttl)) {
                    self.node.spawn(async move { drop(unheard) });
                }
            }
            Message::Release { clone, reply } => self.release(clone, reply),
            Message::Resize { target, max, reply } => drop(reply.send(self.resize(target, max))),
            Message::Reconfigured { done } => {
                self.reconfigure();
                let _ = done.send(());
            }
            Message::Publish {
                generation,
                on_trial,
                reply,
            } => {
                self.publish(generation, on_trial);
                let _ = reply.send(());
            }
            Message::Drain {
                whose,
                drains,
                reply,
            } => {
                self.drain(whose, drains);
                let _ = reply.send(());
            }
        }
    }

    fn checkout(&mut self, ticket: Ticket, ask: Ask, answer: Answer) {
        self.work.checkouts.insert(
            ticket,
            Pending {
                answer,
                ttl: ask.ttl,
            },
        );
        let deadline = lock(&self.ledger).moment_or_never(ask.deadline);
        let terms = Terms {
            on_empty: ask.on_empty,
            deadline,
            ttl: ask.ttl,
            again: ask.again,
        };
        self.happened(Event::Checkout { ticket, terms });
    }

    fn launched(&mut self, clone: CloneKey, vm: Arc<dyn LiveClone>, unique: Unique) {
        self.work.launches.remove(&clone);
        if let Some(entry) = lock(&self.ledger).entries.get_mut(&clone) {
            entry.vm = Some(Arc::clone(&vm));
            entry.unique = Some(unique);
        }
        self.node.memory.measure(&vm);
        self.node
            .spawn(tasks::watch(clone, vm, self.outbox.clone()));
        self.happened(Event::Launched { clone });
    }

    fn launch_failed(&mut self, clone: CloneKey, failure: &CloneFailure) {
        let (phase, fault, reason) = (failure.phase, failure.fault, failure.to_string());
        self.happened(Event::LaunchFailed {
            clone,
            phase,
            fault,
            reason,
        });
    }

    fn renew(&mut self, clone: CloneKey, ttl: Option<Duration>) -> Option<Renewed> {
        // The lease may have ended this very moment: the core says so.
        self.happened(Event::Renewed { clone, ttl });
        let sandbox = self.sandbox(clone)?;
        let view = sandbox.renew(LeaseTimes::begin(ttl).expires_at)?;
        Some(Renewed { sandbox, view })
    }

    fn release(&mut self, clone: CloneKey, reply: oneshot::Sender<()>) {
        let is_leased = matches!(
            lock(&self.ledger).core.clone_state(clone),
            Some(State::Leased { .. })
        );
        if is_leased {
            self.work.releases.insert(clone, reply);
            self.happened(Event::Released { clone });
        }
    }

    fn resize(&mut self, target: Option<u32>, max: Option<u32>) -> Result<(), Sizes> {
        let (target, max) = {
            let ledger = lock(&self.ledger);
            let limits = ledger.core.limits();
            (
                target.map_or(limits.target, size),
                max.map_or(limits.max, size),
            )
        };
        if target > max {
            let narrow = |size| u32::try_from(size).unwrap_or(u32::MAX);
            return Err(Sizes {
                target: narrow(target),
                max: narrow(max),
            });
        }
        info!(target, max, "the pool is resized");
        self.happened(Event::Resized { target, max });
        Ok(())
    }

    /// Takes the pool's settings as they are now. What clones are made with holds for those made from now on; others
    /// are replaced.
    fn reconfigure(&mut self) {
        let spec = self.pool.spec();
        let renew = spec.standby != self.spec.standby || spec.on_clone != self.spec.on_clone;
        let limits = limits(&spec);
        info!(
            target = spec.target,
            max = spec.max,
            renew,
            "the pool has other settings"
        );
        self.spec = spec;
        self.happened(Event::Reconfigured { limits, renew });
    }

    fn drain(&mut self, whose: Drain, drains: bool) {
        if drains {
            info!("the pool drains: no checkouts, and nothing new");
            self.happened(Event::Drain { whose });
        } else {
            info!("the pool goes on");
            self.happened(Event::Resume { whose });
        }
    }

    fn publish(&mut self, generation: Arc<dyn LiveGeneration>, on_trial: bool) {
        info!(generation = %generation.facts().id, "clones are made from this generation from now on");
        let epoch = lock(&self.ledger).add_generation(generation);
        self.happened(Event::Published { epoch, on_trial });
    }

    fn happened(&mut self, event: Event) {
        let released = self.settle(&event);
        let mut effects = {
            let mut ledger = lock(&self.ledger);
            let guests = ledger.core.asked_in_turn();
            ledger.core.set_pace(self.asking.set(guests));
            ledger.on(event)
        };
        // What wakes a waiting request comes last: it then runs next, on this very thread, before what is begun here.
        effects.sort_by_key(|effect| matches!(effect, Effect::Grant { .. }));
        for effect in effects {
            self.carry_out(effect);
        }
        // Only now: what was carried out may name what is forgotten.
        let is_drained = {
            let mut ledger = lock(&self.ledger);
            ledger.forget_ended();
            ledger.core.is_drained()
        };
        if let Some(reply) = released {
            let _ = reply.send(());
        }
        if is_drained {
            self.node.draining.pool_is_empty();
        }
    }

    /// Closes what the actor itself has open for what an event names. Returns who waits for the end of that.
    fn settle(&mut self, event: &Event) -> Option<oneshot::Sender<()>> {
        match event {
            // Nobody had it yet: there is no owner to tell of.
            Event::Returned { clone } => drop(self.end_sandbox(*clone, "it was returned")),
            Event::HungUp { ticket } => drop(self.work.checkouts.remove(ticket)),
            Event::LaunchFailed { clone, .. } => drop(self.work.launches.remove(clone)),
            Event::Ended { clone } => {
                self.work.launches.remove(clone);
                return self.work.releases.remove(clone);
            }
            _ => {}
        }
        None
    }

    pub(super) fn machine(&self, clone: CloneKey) -> Option<Arc<dyn LiveClone>> {
        lock(&self.ledger).entries.get(&clone)?.vm.clone()
    }

    pub(super) fn sandbox(&self, clone: CloneKey) -> Option<Arc<Sandbox>> {
        lock(&self.ledger).entries.get(&clone)?.sandbox.clone()
    }
}
