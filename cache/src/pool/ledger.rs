//! The state of a pool: the core, and what its numbers stand for. The actor alone changes it; views read it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vmint_factory::VmId;

use super::core::{CloneKey, Core, Effect, Epoch, Event, Limits, Moment, Roll, State};
use super::message::Refused;
use crate::admission::ClonePermit;
use crate::mint::{LiveClone, LiveGeneration};
use crate::sandbox::Sandbox;
use crate::uniqueness::Unique;
use crate::view::{CloneState, CloneView, PoolLevel, PoolView, RollView};

/// What a clone's number stands for.
pub(super) struct Entry {
    pub id: VmId,
    pub epoch: Epoch,
    /// Whether its virtual CPUs stand still until it is granted.
    pub is_paused: bool,
    /// Known once it was made.
    pub vm: Option<Arc<dyn LiveClone>>,
    /// Its marks, from when it was made until it is gone.
    pub unique: Option<Unique>,
    /// Its right to memory, from before its launch until it is gone.
    pub memory: ClonePermit,
    /// While it is leased.
    pub sandbox: Option<Arc<Sandbox>>,
}

/// The state of a pool.
pub(super) struct Ledger {
    pub core: Core,
    pub entries: HashMap<CloneKey, Entry>,
    /// How many entries each generation has.
    clones_of: HashMap<Epoch, usize>,
    epochs: BTreeMap<Epoch, Arc<dyn LiveGeneration>>,
    next_epoch: u64,
    started: Instant,
}

impl Ledger {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            core: Core::new(limits, seed),
            entries: HashMap::new(),
            clones_of: HashMap::new(),
            epochs: BTreeMap::new(),
            next_epoch: 0,
            started: Instant::now(),
        }
    }

    /// Tells the core what happened, now.
    pub(super) fn on(&mut self, event: Event) -> Vec<Effect> {
        let now = self.now();
        self.core.on(now, event)
    }

    /// This moment, in the core's time.
    pub(super) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// A moment in the core's time.
    pub(super) fn moment(&self, instant: Instant) -> Moment {
        Moment::new(instant.saturating_duration_since(self.started))
    }

    /// The same; `None` is later than any.
    pub(super) fn moment_or_never(&self, instant: Option<Instant>) -> Moment {
        let never = Moment::new(Duration::MAX);
        instant.map_or(never, |instant| self.moment(instant))
    }

    /// When the core must be called again.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let wake = self.core.next_wake()?.since_start();
        // Farther than a clock can say is never.
        self.started.checked_add(wake)
    }

    /// Remembers a generation under a number of its own: the one that it has, where it is known already.
    pub(super) fn add_generation(&mut self, generation: Arc<dyn LiveGeneration>) -> Epoch {
        let id = &generation.facts().id;
        let mut known = self.epochs.iter();
        if let Some((epoch, _)) = known.find(|(_, other)| other.facts().id == *id) {
            return *epoch;
        }
        let epoch = Epoch(self.next_epoch);
        self.next_epoch += 1;
        self.epochs.insert(epoch, generation);
        epoch
    }

    /// The generation with this number.
    pub(super) fn generation(&self, epoch: Epoch) -> Option<&Arc<dyn LiveGeneration>> {
        self.epochs.get(&epoch)
    }

    /// The name of the generation with this number.
    pub(super) fn generation_name(&self, epoch: Epoch) -> Option<String> {
        self.generation(epoch)
            .map(|generation| generation.facts().id.to_string())
    }

    /// Forgets what no longer lives: clones that the core has forgotten, and generations without clones that none will
    /// be made from: neither the current one, nor the one that may be gone back to. Their files may go with that.
    pub(super) fn forget_ended(&mut self) {
        for clone in self.core.take_gone() {
            let epoch = self.entries.remove(&clone).map(|entry| entry.epoch);
            if let Some(count) = epoch.and_then(|epoch| self.clones_of.get_mut(&epoch)) {
                *count -= 1;
            }
        }
        self.clones_of.retain(|_, count| *count > 0);
        let (core, clones_of) = (&self.core, &self.clones_of);
        self.epochs
            .retain(|epoch, _| core.needs(*epoch) || clones_of.contains_key(epoch));
    }

    /// Remembers what a clone's number stands for.
    pub(super) fn enter(&mut self, clone: CloneKey, entry: Entry) {
        *self.clones_of.entry(entry.epoch).or_default() += 1;
        self.entries.insert(clone, entry);
    }

    /// Forgets all generations: nothing is made any more.
    pub(super) fn forget_generations(&mut self) {
        self.epochs.clear();
    }

    /// The generations in use, each with the number of its clones.
    pub(super) fn generations(&self) -> Vec<(Arc<dyn LiveGeneration>, usize)> {
        let count = |epoch| self.clones_of.get(&epoch).copied().unwrap_or_default();
        self.epochs
            .iter()
            .rev()
            .map(|(epoch, generation)| (Arc::clone(generation), count(*epoch)))
            .collect()
    }

    /// The virtual machines that live.
    pub(super) fn machines(&self) -> Vec<Arc<dyn LiveClone>> {
        self.entries
            .values()
            .filter_map(|entry| entry.vm.clone())
            .collect()
    }

    /// Those that stand ready.
    pub(super) fn ready_machines(&self) -> Vec<(CloneKey, Arc<dyn LiveClone>)> {
        let ready = |clone| self.core.clone_state(clone) == Some(State::Ready);
        let entries = self.entries.iter().filter(|(clone, _)| ready(**clone));
        entries
            .filter_map(|(clone, entry)| Some((*clone, entry.vm.clone()?)))
            .collect()
    }

    /// Those that somebody has, and that are not being ended.
    pub(super) fn leased_machines(&self) -> Vec<Arc<dyn LiveClone>> {
        let leased = self
            .entries
            .values()
            .filter(|entry| entry.sandbox.is_some());
        leased.filter_map(|entry| entry.vm.clone()).collect()
    }

    /// Why nothing is ready, and when another try makes sense.
    pub(super) fn why_empty(&self) -> Refused {
        let tally = self.core.tally();
        let max = self.core.limits().max;
        let reason = if let Some(reason) = self.core.degraded() {
            reason.to_owned()
        } else if tally.alive() >= max {
            format!(
                "as many clones live as may (max {max}): {} leased, {} being made, {} being ended",
                tally.leased,
                tally.in_flight(),
                tally.releasing
            )
        } else if let Some(sum) = self.core.short_of_memory() {
            sum.to_owned()
        } else {
            format!(
                "{} clones are being made, {} checkouts wait",
                tally.in_flight(),
                self.core.waiters()
            )
        };
        let retry_after = self.core.pause() + RETRY_AFTER;
        Refused::Empty {
            reason,
            has_generation: self.core.epoch().is_some(),
            retry_after,
        }
    }

    /// What the pool comes to, without its clones.
    pub(super) fn level(&self, template: &str) -> PoolLevel {
        let (core, tally) = (&self.core, self.core.tally());
        PoolLevel {
            template: template.to_owned(),
            target: narrow(core.limits().target),
            ready: tally.ready(),
            launching: tally.in_flight(),
            leased: tally.leased,
            unresponsive: tally.unresponsive,
            releasing: tally.releasing,
            waiters: core.waiters(),
            degraded: self.degraded(),
            draining: core.is_draining(),
            was_filled: core.was_filled(),
        }
    }

    fn degraded(&self) -> Option<String> {
        let why = self.core.degraded().or(self.core.short_of_memory());
        why.map(str::to_owned)
    }

    /// What the pool looks like. It looks at each clone.
    pub(super) fn view(&self, template: &str) -> PoolView {
        let (core, tally) = (&self.core, self.core.tally());
        let (hits, misses) = core.hits_and_misses();
        PoolView {
            template: template.to_owned(),
            target: narrow(core.limits().target),
            max: narrow(core.limits().max),
            ready: tally.ready(),
            updated: core.updated(),
            launching: tally.in_flight(),
            leased: tally.leased,
            unresponsive: tally.unresponsive,
            releasing: tally.releasing,
            waiters: core.waiters(),
            hits,
            misses,
            degraded: self.degraded(),
            draining: core.is_draining(),
            roll: core.roll().map(|roll| self.roll_view(roll)),
            clones: self.clone_views(),
        }
    }

    fn roll_view(&self, roll: &Roll) -> RollView {
        let name = |epoch| self.generation_name(epoch).unwrap_or_default();
        RollView {
            from: name(roll.from),
            to: name(roll.to),
            updated: self.core.updated(),
            ready: self.core.tally().ready(),
            target: narrow(self.core.limits().target),
            deadline: roll.progress_by.map(|end| end.since(self.now())),
        }
    }

    fn clone_views(&self) -> Vec<CloneView> {
        let now = self.now();
        let view = |(clone, slot): (CloneKey, &super::core::Slot)| {
            let entry = self.entries.get(&clone)?;
            Some(CloneView {
                id: entry.id.to_string(),
                state: clone_state(slot.state),
                generation: self.generation_name(slot.epoch),
                age: now.since(slot.begun),
            })
        };
        self.core.clones().filter_map(view).collect()
    }
}

/// When another try makes sense where nothing better is known: a clone takes less.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

fn clone_state(state: State) -> CloneState {
    match state {
        State::Launching => CloneState::Launching,
        State::Ready => CloneState::Ready,
        State::Leased { .. } => CloneState::Leased,
        State::Releasing => CloneState::Releasing,
    }
}

/// Sizes come from numbers of 32 bits and never grow.
fn narrow(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
