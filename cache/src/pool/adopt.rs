//! Clones of an earlier service join their pool, before it hears of anything else.
//!
//! A leased one is a sandbox again as if nothing had happened: with its lease, its key, its devices. A ready one joins
//! those that wait, unless it was made for other settings than the pool has now: then it is ended.

use std::sync::Arc;

use tracing::{info, warn};
use vmint_factory::{AgentState, GenerationId};

use super::actor::Actor;
use super::core::CloneKey;
use super::ledger::Entry;
use super::tasks;
use crate::devices;
use crate::mint::{AdoptedClone, AdoptedLease, LiveClone};
use crate::sandbox::{Sandbox, view_of};
use crate::spec::Standby;
use crate::sync::lock;
use crate::uniqueness::Unique;

/// Whether its guest cannot be talked to.
fn is_outdated(vm: &dyn LiveClone) -> bool {
    vm.facts().agent == AgentState::Outdated
}

impl Actor {
    /// Takes in clones of an earlier service.
    pub(super) fn take_in(&self, mut clones: Vec<AdoptedClone>) {
        // Generations are numbered in the order in which they were built, as if this pool had seen them come.
        clones.sort_by(|a, b| a.generation.facts().id.cmp(&b.generation.facts().id));
        for adopted in clones {
            match self.marks_of(&adopted) {
                Ok(unique) => self.join(adopted, unique),
                Err(why) => self.turn_away(&adopted.vm, &why),
            }
        }
    }

    /// Whether it may join, and with which marks of its own.
    fn marks_of(&self, adopted: &AdoptedClone) -> Result<Option<Unique>, String> {
        let paused = self.spec.standby == Standby::Paused;
        if adopted.lease.is_none() && adopted.is_paused != paused {
            return Err("it stands by in another way than the pool's clones now do".to_owned());
        }
        if adopted.lease.is_none() && is_outdated(&*adopted.vm) {
            let why = "its guest agent is of another version of vmint, and cannot be talked to";
            return Err(why.to_owned());
        }
        if adopted.lease.is_none() && adopted.on_clone != self.spec.on_clone {
            return Err("other commands were run in it than on_clone now says".to_owned());
        }
        let facts = adopted.vm.facts();
        let entered = self
            .node
            .uniqueness
            .enter(&facts.id, &adopted.vm.identity(), &facts.digest);
        match entered {
            Ok(unique) => Ok(Some(unique)),
            // Whose it is decides about a sandbox, not what it looks like.
            Err(duplicate) if adopted.lease.is_some() => {
                warn!(vm = %facts.id, error = %duplicate, "a sandbox of an earlier service is not unique");
                Ok(None)
            }
            Err(duplicate) => Err(duplicate.to_string()),
        }
    }

    fn join(&self, adopted: AdoptedClone, unique: Option<Unique>) {
        let AdoptedClone {
            vm,
            generation,
            lease,
            is_paused: adopted_paused,
            ..
        } = adopted;
        let (template, memory) = (self.pool.template(), &self.node.memory);
        let generation = memory.found(template, generation);
        let facts = generation.facts();
        let generation_id = facts.id.clone();
        let size = lease.as_ref().map(|lease| lease.facts.size.memory_mib);
        let plugged_mib = size.map_or(0, |mib| mib.saturating_sub(facts.sizes.least.memory_mib));
        let permit = memory.adopted(template, &vm, plugged_mib);
        if lease.is_some() {
            permit.lent();
        }
        let clone = {
            let mut ledger = lock(&self.ledger);
            let epoch = ledger.add_generation(generation);
            let now = ledger.now();
            let clone = match &lease {
                Some(lease) => ledger.core.adopt_leased(now, epoch, lease.left),
                None => ledger.core.adopt_ready(now, epoch),
            };
            if is_outdated(&*vm) {
                ledger.core.never_ask(clone);
            }
            let entry = Entry {
                id: vm.id().clone(),
                epoch,
                memory: permit,
                is_paused: adopted_paused,
                vm: Some(Arc::clone(&vm)),
                unique,
                sandbox: None,
            };
            ledger.enter(clone, entry);
            clone
        };
        if let Some(lease) = lease {
            self.restore_sandbox(clone, &vm, &generation_id, lease);
        }
        self.node
            .spawn(tasks::watch(clone, vm, self.outbox.clone()));
    }

    fn restore_sandbox(
        &self,
        clone: CloneKey,
        vm: &Arc<dyn LiveClone>,
        generation: &GenerationId,
        lease: AdoptedLease,
    ) {
        let AdoptedLease {
            facts,
            left,
            devices,
            disk_keys,
        } = lease;
        let id = vm.id().clone();
        if let Err(conflict) = devices::restore(&devices, &disk_keys, vm, &self.node) {
            warn!(vm = %id, error = %conflict, "a sandbox of an earlier service has what another has too");
        }
        let sandbox = Sandbox::new(clone, Arc::clone(vm));
        let key = facts.idempotency.clone();
        let view = view_of((self.pool.template(), generation), &**vm, facts, devices);
        if let Some(key) = key {
            self.node.repeats.restore(&key, view.clone());
            sandbox.named_by(key);
        }
        sandbox.taken_over(view);
        if let Some(entry) = lock(&self.ledger).entries.get_mut(&clone) {
            entry.sandbox = Some(Arc::clone(&sandbox));
        }
        self.node.sandboxes.enter(sandbox, self.pool.clone());
        info!(vm = %id, left_s = left.map(|left| left.as_secs()), "a sandbox of an earlier service lives on");
        if is_outdated(&**vm) {
            warn!(vm = %id, "its guest agent is of another version of vmint: it can be looked at, renewed and released, and nothing can be run in it");
        }
    }

    /// Ends a clone that does not join.
    fn turn_away(&self, vm: &Arc<dyn LiveClone>, why: &str) {
        info!(vm = %vm.id(), why, "a clone of an earlier service is ended");
        let vm = Arc::clone(vm);
        self.node.spawn(async move {
            vm.end().await;
        });
    }
}
