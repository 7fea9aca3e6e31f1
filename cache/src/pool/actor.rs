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

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vmint_factory::{GenerationId, VmId};

use super::core::{
    CloneKey, Effect, EndReason, Epoch, Event, Moment, Refusal, State, Terms, Ticket,
};
use super::grant::Grant;
use super::handle::{Pool, size};
use super::ledger::{Entry, Ledger};
use super::message::{Ask, LeaseTimes, Message, Outbox, Refused, Sizes};
use super::tasks::{self, Launch};
use crate::mint::{CloneFailure, LaunchOrder, LiveClone, LiveGeneration};
use crate::node::Node;
use crate::sandbox::{Sandbox, lease_record};
use crate::spec::{PoolSpec, Standby};
use crate::sync::lock;
use crate::view::{SandboxView, Source};

/// Is told that clones cannot be made from a generation.
pub(crate) type DamageReport = Box<dyn Fn(&GenerationId, &str) + Send>;

type Answer = oneshot::Sender<Result<Grant, Refused>>;

/// A checkout that was not answered yet.
struct Pending {
    answer: Answer,
    ttl: Option<Duration>,
}

/// Owns one pool.
pub(super) struct Actor {
    pub node: Arc<Node>,
    pub pool: Pool,
    pub spec: PoolSpec,
    pub ledger: Arc<Mutex<Ledger>>,
    pub inbox: mpsc::Receiver<Message>,
    pub outbox: Outbox,
    pub on_damage: DamageReport,
    work: Work,
}

/// What the actor has under way.
#[derive(Default)]
struct Work {
    checkouts: HashMap<Ticket, Pending>,
    launches: HashMap<CloneKey, CancellationToken>,
    releases: HashMap<CloneKey, oneshot::Sender<()>>,
}

impl Actor {
    pub(super) fn new(
        node: Arc<Node>,
        (pool, spec): (Pool, PoolSpec),
        ledger: Arc<Mutex<Ledger>>,
        (outbox, inbox): (Outbox, mpsc::Receiver<Message>),
        on_damage: DamageReport,
    ) -> Self {
        Self {
            node,
            pool,
            spec,
            ledger,
            inbox,
            outbox,
            on_damage,
            work: Work::default(),
        }
    }

    /// Works until everything has ended after a stop.
    pub(super) async fn run(mut self) {
        while !self.is_finished() {
            let wake = lock(&self.ledger).next_wake();
            tokio::select! {
                // None cannot be: the actor holds a sender itself.
                message = self.inbox.recv() => message.into_iter().for_each(|message| self.take(message)),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.happened(Event::Tick),
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
            Message::Launched { clone, vm } => self.launched(clone, vm),
            Message::LaunchFailed { clone, failure } => self.launch_failed(clone, &failure),
            Message::Happened(event) => self.happened(event),
            Message::Renew { clone, ttl, reply } => drop(reply.send(self.renew(clone, ttl))),
            Message::Release { clone, reply } => self.release(clone, reply),
            Message::Resize { target, max, reply } => drop(reply.send(self.resize(target, max))),
            Message::Publish { generation, reply } => {
                self.publish(generation);
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
        let deadline: Moment = lock(&self.ledger).moment(ask.deadline);
        let terms = Terms {
            on_empty: ask.on_empty,
            deadline,
            ttl: ask.ttl,
            again: ask.again,
        };
        self.happened(Event::Checkout { ticket, terms });
    }

    fn launched(&mut self, clone: CloneKey, vm: Arc<dyn LiveClone>) {
        self.work.launches.remove(&clone);
        if let Some(entry) = lock(&self.ledger).entries.get_mut(&clone) {
            entry.vm = Some(Arc::clone(&vm));
        }
        self.node
            .spawn(tasks::watch(clone, vm, self.outbox.clone()));
        self.happened(Event::Launched { clone });
    }

    fn launch_failed(&mut self, clone: CloneKey, failure: &CloneFailure) {
        self.work.launches.remove(&clone);
        let (phase, damage, reason) = (failure.phase, failure.damage, failure.to_string());
        self.happened(Event::LaunchFailed {
            clone,
            phase,
            damage,
            reason,
        });
    }

    fn renew(&mut self, clone: CloneKey, ttl: Option<Duration>) -> Option<SandboxView> {
        // The lease may have ended this very moment: the core says so.
        self.happened(Event::Renewed { clone, ttl });
        let sandbox = self.sandbox(clone)?;
        let view = sandbox.renew(LeaseTimes::begin(ttl).expires_at)?;
        if let Err(error) = sandbox.vm().record(lease_record(&view)) {
            warn!(id = view.id, %error, "the renewed lease was not recorded");
        }
        Some(view)
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

    fn publish(&mut self, generation: Arc<dyn LiveGeneration>) {
        info!(generation = %generation.facts().id, "clones are made from this generation from now on");
        let epoch = lock(&self.ledger).add_generation(generation);
        self.happened(Event::Published { epoch });
    }

    fn happened(&mut self, event: Event) {
        let released = self.settle(&event);
        let effects = lock(&self.ledger).on(event);
        for effect in effects {
            self.carry_out(effect);
        }
        if let Some(reply) = released {
            let _ = reply.send(());
        }
    }

    /// Closes what the actor itself has open for what an event names. Returns who waits for the end of that.
    fn settle(&mut self, event: &Event) -> Option<oneshot::Sender<()>> {
        match event {
            Event::Returned { clone } => self.end_sandbox(*clone, "it was returned"),
            Event::HungUp { ticket } => drop(self.work.checkouts.remove(ticket)),
            Event::Ended { clone } => {
                self.work.launches.remove(clone);
                return self.work.releases.remove(clone);
            }
            _ => {}
        }
        None
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Launch {
                clone,
                epoch,
                urgent,
            } => self.launch(clone, epoch, urgent),
            Effect::Abandon { clone } => {
                self.work
                    .launches
                    .get(&clone)
                    .into_iter()
                    .for_each(CancellationToken::cancel);
            }
            Effect::Grant {
                ticket,
                clone,
                source,
            } => self.grant(ticket, clone, source),
            Effect::Refuse { ticket, why } => self.refuse(ticket, why),
            Effect::Ping { clone } => {
                if let Some(vm) = self.machine(clone) {
                    self.node.spawn(tasks::ping(clone, vm, self.outbox.clone()));
                }
            }
            Effect::End { clone, why } => self.end(clone, why),
            Effect::Rebuild { epoch, reason } => self.report_damage(epoch, &reason),
            Effect::Degraded { reason } => {
                error!(reason, "the pool is degraded: clones cannot be made")
            }
            Effect::Recovered => info!("the pool has recovered: clones are made again"),
        }
    }

    fn launch(&mut self, clone: CloneKey, epoch: Epoch, urgent: bool) {
        let id = VmId::random();
        let abandoned = CancellationToken::new();
        let Some(generation) = self.enter(clone, epoch, id.clone()) else {
            return;
        };
        self.work.launches.insert(clone, abandoned.clone());
        let order = LaunchOrder {
            hostname: id.to_string(),
            id,
            on_clone: self.spec.on_clone.clone(),
            paused: self.spec.standby == Standby::Paused,
        };
        let launch = Launch {
            clone,
            generation,
            order,
            urgent,
            abandoned,
            template: self.pool.template().to_owned(),
        };
        self.node.spawn(tasks::launch(
            Arc::clone(&self.node),
            launch,
            self.outbox.clone(),
        ));
    }

    fn enter(&self, clone: CloneKey, epoch: Epoch, id: VmId) -> Option<Arc<dyn LiveGeneration>> {
        let mut ledger = lock(&self.ledger);
        ledger.entries.insert(
            clone,
            Entry {
                id,
                epoch,
                vm: None,
                sandbox: None,
            },
        );
        ledger.generation(epoch).cloned()
    }

    fn grant(&mut self, ticket: Ticket, clone: CloneKey, source: Source) {
        let Some(Pending { answer, ttl }) = self.work.checkouts.remove(&ticket) else {
            // Nobody waits for it: give it back.
            self.outbox.post(Event::Returned { clone });
            return;
        };
        let Some((sandbox, generation)) = self.begin_sandbox(clone) else {
            return;
        };
        self.node
            .sandboxes
            .enter(Arc::clone(&sandbox), self.pool.clone());
        let grant = Grant::new(
            sandbox,
            self.outbox.clone(),
            generation,
            source,
            LeaseTimes::begin(ttl),
        );
        // An answer that nobody takes is dropped here or there, and gives the clone back.
        drop(answer.send(Ok(grant)));
    }

    fn begin_sandbox(&self, clone: CloneKey) -> Option<(Arc<Sandbox>, Arc<dyn LiveGeneration>)> {
        let mut ledger = lock(&self.ledger);
        let entry = ledger.entries.get_mut(&clone)?;
        let sandbox = Sandbox::new(clone, Arc::clone(entry.vm.as_ref()?));
        entry.sandbox = Some(Arc::clone(&sandbox));
        let epoch = entry.epoch;
        Some((sandbox, Arc::clone(ledger.generation(epoch)?)))
    }

    fn refuse(&mut self, ticket: Ticket, why: Refusal) {
        let Some(Pending { answer, .. }) = self.work.checkouts.remove(&ticket) else {
            return;
        };
        let refused = match why {
            Refusal::Empty => lock(&self.ledger).why_empty(),
            Refusal::QueueFull => Refused::QueueFull {
                queue: self.spec.queue,
            },
            Refusal::Closed => Refused::Closed,
        };
        drop(answer.send(Err(refused)));
    }

    fn end(&mut self, clone: CloneKey, why: EndReason) {
        self.end_sandbox(clone, why.as_str());
        if let Some(vm) = self.machine(clone) {
            let id = vm.facts().id;
            match why {
                EndReason::Died => warn!(vm = %id, "a clone died"),
                EndReason::Silent => warn!(vm = %id, "a clone is discarded: {}", why.as_str()),
                _ => info!(vm = %id, "a clone is ended: {}", why.as_str()),
            }
            self.node.spawn(tasks::end(clone, vm, self.outbox.clone()));
        }
    }

    /// Ends the lease of a clone, if it has one: from now on nobody finds the sandbox.
    fn end_sandbox(&self, clone: CloneKey, why: &'static str) {
        let sandbox = lock(&self.ledger)
            .entries
            .get_mut(&clone)
            .and_then(|entry| entry.sandbox.take());
        if let Some(sandbox) = sandbox {
            self.node.sandboxes.leave(&sandbox);
            sandbox.end(why);
        }
    }

    fn report_damage(&self, epoch: Epoch, reason: &str) {
        let generation = lock(&self.ledger)
            .generation(epoch)
            .map(|generation| generation.facts().id.clone());
        if let Some(generation) = generation {
            (self.on_damage)(&generation, reason);
        }
    }

    fn machine(&self, clone: CloneKey) -> Option<Arc<dyn LiveClone>> {
        lock(&self.ledger).entries.get(&clone)?.vm.clone()
    }

    fn sandbox(&self, clone: CloneKey) -> Option<Arc<Sandbox>> {
        lock(&self.ledger).entries.get(&clone)?.sandbox.clone()
    }
}
