//! The actor's other half: what it does about each effect that the core wants.

use std::sync::Arc;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vmint_factory::{CloneOrder, Phase, VmId};

use super::actor::{Actor, Pending, Report};
use super::core::{CloneKey, Effect, EndReason, Epoch, Event, Refusal, Ticket};
use super::grant::Grant;
use super::ledger::Entry;
use super::message::{LeaseTimes, Refused};
use super::tasks::{self, Launch};
use crate::events::Happening;
use crate::mint::{Fault, LiveGeneration};
use crate::sandbox::Sandbox;
use crate::spec::Standby;
use crate::sync::lock;
use crate::view::Source;

impl Actor {
    pub(super) fn carry_out(&mut self, effect: Effect) {
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
            Effect::Ping { clone } => self.ask(clone),
            Effect::Unresponsive { clone } => self.unresponsive(clone),
            Effect::Responsive { clone } => self.responsive(clone),
            Effect::End { clone, why } => self.end(clone, why),
            Effect::Leave { clone } => self.leave(clone),
            Effect::Rebuild { epoch, reason } => self.report_damage(epoch, reason),
            Effect::Rolls { from, to } => self.rolls(from, to),
            Effect::Rolled { to } => self.rolled(to),
            Effect::RollBack {
                given_up,
                back_to,
                reason,
            } => self.rolled_back(given_up, back_to, reason),
            Effect::Degraded { reason } => {
                error!(reason, "the pool is degraded: clones cannot be made")
            }
            Effect::Recovered => info!("the pool has recovered: clones are made again"),
            Effect::OutOfRoom { reason } => {
                warn!(reason, "there is no memory for another clone: it waits");
            }
            Effect::RoomAgain => info!("there is memory for all clones that are wanted"),
        }
    }

    fn launch(&mut self, clone: CloneKey, epoch: Epoch, urgent: bool) {
        let id = VmId::random();
        let memory = match self.node.memory.clone_of(self.pool.template(), &id) {
            Ok(memory) => memory,
            Err(sum) => {
                let reason = sum.to_string();
                self.outbox.post(Event::NoRoom { clone, reason });
                self.make_room();
                return;
            }
        };
        let abandoned = CancellationToken::new();
        let paused = self.spec.standby == Standby::Paused;
        let entry = Entry {
            id: id.clone(),
            epoch,
            memory,
            is_paused: paused,
            vm: None,
            unique: None,
            sandbox: None,
        };
        let Some(generation) = self.enter(clone, entry) else {
            // It cannot be: the ledger keeps the current one. But a launch without an answer would count for ever.
            let (phase, reason) = (Phase::Spawn, "its generation is gone".to_owned());
            self.outbox.post(Event::LaunchFailed {
                clone,
                phase,
                fault: Fault::Clone,
                reason,
            });
            return;
        };
        self.work.launches.insert(clone, abandoned.clone());
        let order = CloneOrder {
            hostname: id.to_string(),
            id,
            on_clone: self.spec.on_clone.clone(),
            warm: true,
            paused,
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

    /// Has generations that are only kept give way to a clone that was refused. Every pool hears of what is free then.
    fn make_room(&self) {
        let template = self.pool.template().to_owned();
        if self.node.memory.only_kept(&template).is_empty() {
            return;
        }
        let node = Arc::clone(&self.node);
        self.node.spawn(async move {
            let admit = || node.memory.may_clone(&template);
            // Refused once more, it waits as any other.
            let _ = node.make_room(&template, "a clone", admit).await;
        });
    }

    fn enter(&self, clone: CloneKey, entry: Entry) -> Option<Arc<dyn LiveGeneration>> {
        let mut ledger = lock(&self.ledger);
        let epoch = entry.epoch;
        ledger.enter(clone, entry);
        ledger.generation(epoch).cloned()
    }

    fn grant(&mut self, ticket: Ticket, clone: CloneKey, source: Source) {
        let Some(Pending { answer, ttl }) = self.work.checkouts.remove(&ticket) else {
            // Nobody waits for it: give it back.
            self.outbox.post(Event::Returned { clone });
            return;
        };
        let Some((sandbox, generation, is_paused)) = self.begin_sandbox(clone) else {
            // The core grants what is ready, and what is ready has a machine and a generation. Should that ever not be so,
            // the clone is not to count as leased for good, and the caller gets an answer.
            error!(
                ?clone,
                "a clone was granted that the pool has no machine of: it is discarded"
            );
            self.outbox.post(Event::Spoiled { clone });
            drop(answer.send(Err(lock(&self.ledger).why_empty())));
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
            is_paused,
        );
        // An answer that nobody takes is dropped here or there, and gives the clone back.
        drop(answer.send(Ok(grant)));
    }

    fn begin_sandbox(
        &self,
        clone: CloneKey,
    ) -> Option<(Arc<Sandbox>, Arc<dyn LiveGeneration>, bool)> {
        let mut ledger = lock(&self.ledger);
        let entry = ledger.entries.get_mut(&clone)?;
        let sandbox = Sandbox::new(clone, Arc::clone(entry.vm.as_ref()?));
        entry.sandbox = Some(Arc::clone(&sandbox));
        entry.memory.lent();
        let (epoch, is_paused) = (entry.epoch, entry.is_paused);
        let generation = Arc::clone(ledger.generation(epoch)?);
        Some((sandbox, generation, is_paused))
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
            Refusal::Draining => Refused::Draining,
            Refusal::Closed => Refused::Closed,
        };
        drop(answer.send(Err(refused)));
    }

    fn end(&mut self, clone: CloneKey, why: EndReason) {
        let sandbox = self.end_sandbox(clone, why.as_str());
        let view = sandbox.as_ref().and_then(|sandbox| sandbox.view());
        let owner_uid = view.map(|view| view.owner_uid);
        if let Some(vm) = self.machine(clone) {
            let id = vm.id().clone();
            let (clone_id, reason) = (id.to_string(), why.as_str());
            let what = Happening::CloneEnded {
                clone: clone_id,
                owner_uid,
                reason,
            };
            self.node.events.tell(self.pool.template(), what);
            match why {
                EndReason::Died => {
                    let how = vm.ended().now_or_never().unwrap_or_default();
                    warn!(vm = %id, how, "a clone died");
                }
                EndReason::Silent | EndReason::Stalled | EndReason::Unresponsive => {
                    warn!(vm = %id, "a clone is ended: {}", why.as_str())
                }
                _ => info!(vm = %id, "a clone is ended: {}", why.as_str()),
            }
            self.node
                .spawn(tasks::end(clone, vm, sandbox, self.outbox.clone()));
        } else {
            self.outbox.post(Event::Ended { clone });
        }
    }

    /// Lets go of a sandbox that lives on: its record says whose it is.
    fn leave(&mut self, clone: CloneKey) {
        let sandbox = self.take_sandbox(clone);
        if let Some(sandbox) = &sandbox {
            sandbox.end("the service stops, and the sandbox goes on without it");
        }
        if let Some(vm) = self.machine(clone) {
            info!(vm = %vm.id(), "a leased sandbox is left running");
            self.node
                .spawn(tasks::leave(clone, vm, sandbox, self.outbox.clone()));
        } else {
            self.outbox.post(Event::Ended { clone });
        }
    }

    /// The sandbox that a clone is, which nobody finds any more.
    fn take_sandbox(&self, clone: CloneKey) -> Option<Arc<Sandbox>> {
        let mut ledger = lock(&self.ledger);
        let sandbox = ledger.entries.get_mut(&clone)?.sandbox.take()?;
        self.node.sandboxes.leave(&sandbox);
        Some(sandbox)
    }

    /// Ends the lease of a clone, if it has one: from now on nobody finds the sandbox.
    pub(super) fn end_sandbox(&self, clone: CloneKey, why: &'static str) -> Option<Arc<Sandbox>> {
        let sandbox = self.take_sandbox(clone)?;
        sandbox.end(why);
        if let Some(view) = sandbox.view() {
            self.node.repeats.ended(&view.id);
            let what = Happening::Release {
                sandbox: view.id,
                owner_uid: view.owner_uid,
                reason: why,
            };
            self.node.events.tell(self.pool.template(), what);
        }
        Some(sandbox)
    }

    fn report_damage(&self, epoch: Epoch, reason: String) {
        if let Some(generation) = self.generation(epoch) {
            let generation = generation.facts().id.clone();
            (self.reports)(Report::Damaged { generation, reason });
        }
    }
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
