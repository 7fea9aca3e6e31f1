//! The factory itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::yield_now;
use vmint_cache::{
    AdoptedClone, AdoptedLease, BoxError, BuildStep, CloneFailure, CloneOrder, Fault, LiveClone,
    LiveGeneration, RecordState, StepReport,
};
use vmint_factory::{BuildError, GenerationId, Phase, RoomError, TemplateSpec, VmId};

use super::generation::{Generation, GenerationState, state_of};
use super::machine::{Clone, Handle};
use super::script::{Build, Launch, Script};

use crate::time::takes;

pub(crate) struct FakeFactory {
    pub script: Mutex<Script>,
    pub clones: Mutex<BTreeMap<VmId, Arc<Clone>>>,
    /// All that were ever made, the oldest first.
    pub generations: Mutex<Vec<Arc<GenerationState>>>,
    /// The numbers of those that are on disk, the oldest first, and of the current one.
    pub disk: Mutex<Disk>,
    pub launches_begun: AtomicUsize,
    pub launching: Arc<AtomicUsize>,
    pub launching_most: AtomicUsize,
    pub building: Arc<AtomicUsize>,
    pub building_most: AtomicUsize,
    /// How many services have crashed.
    pub era: Arc<AtomicUsize>,
    /// Templates that were removed from disk.
    pub forgotten: Mutex<Vec<String>>,
    /// Times that a generation was looked for on disk.
    pub finds: AtomicUsize,
    /// What the generations are made of, the newest last.
    pub built: Mutex<Vec<TemplateSpec>>,
    /// Builds go on while this is true.
    pub build_gate: watch::Sender<bool>,
}

/// What is on disk: places in the list of all generations.
#[derive(Default)]
pub(crate) struct Disk {
    pub all: Vec<usize>,
    pub current: Option<usize>,
}

/// Counts down when what it stands for is over, however it ends.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>, most: &AtomicUsize) -> Self {
        most.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeFactory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::default(),
            clones: Mutex::default(),
            generations: Mutex::default(),
            disk: Mutex::default(),
            launches_begun: AtomicUsize::new(0),
            launching: Arc::default(),
            launching_most: AtomicUsize::new(0),
            building: Arc::default(),
            building_most: AtomicUsize::new(0),
            era: Arc::default(),
            forgotten: Mutex::default(),
            finds: AtomicUsize::new(0),
            built: Mutex::default(),
            build_gate: watch::Sender::new(true),
        })
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub(crate) fn clone_of(&self, id: &str) -> Arc<Clone> {
        Arc::clone(&self.clones.lock().unwrap()[&VmId::parse(id).unwrap()])
    }

    /// The machines that live.
    pub(crate) fn alive(&self) -> Vec<Arc<Clone>> {
        self.clones
            .lock()
            .unwrap()
            .values()
            .filter(|clone| clone.is_alive())
            .cloned()
            .collect()
    }

    /// The service is killed: whatever it still does to its machines reaches none of them.
    pub(crate) fn service_dies(&self) {
        self.era.fetch_add(1, Ordering::SeqCst);
    }

    /// Machines whose records are whole, as the next service finds them.
    pub(crate) fn adopted(&self) -> Vec<AdoptedClone> {
        let adopted = self.alive().into_iter().filter_map(|clone| {
            let lease = match clone.recorded()? {
                RecordState::Ready => None,
                RecordState::Leased(facts) => Some(AdoptedLease {
                    left: facts.expires_at.map(|end| {
                        let left = end.duration_since(Timestamp::now());
                        Duration::try_from(left).unwrap_or_default()
                    }),
                    devices: clone.attached.lock().unwrap().clone(),
                    disk_keys: clone.disk_keys.lock().unwrap().clone(),
                    facts,
                }),
                RecordState::Preparing | RecordState::Releasing => {
                    clone.dies("it was swept");
                    return None;
                }
            };
            Some(AdoptedClone {
                template: "default".to_owned(),
                generation: self.known(&clone.generation).unwrap(),
                lease,
                is_paused: clone.order.paused,
                on_clone: clone.order.on_clone.clone(),
                vm: Arc::new(Handle::new(clone, &self.era)),
            })
        });
        adopted.collect()
    }

    /// One that was made before.
    pub(super) fn known(&self, id: &GenerationId) -> Option<Arc<dyn LiveGeneration>> {
        let all = self.generations.lock().unwrap();
        let state = all.iter().find(|state| state.facts.id == *id)?;
        Some(Arc::new(Generation(Arc::clone(state))))
    }

    /// A new one, published.
    pub(crate) fn generation(&self, recipe: u32) -> Arc<dyn LiveGeneration> {
        self.generation_of(recipe, None)
    }

    pub(super) fn generation_of(
        &self,
        recipe: u32,
        made_of: Option<TemplateSpec>,
    ) -> Arc<dyn LiveGeneration> {
        let (launch, refuses_vcpus) = {
            let script = self.script();
            (script.of_generation, script.refuses_vcpus)
        };
        let mut state = GenerationState::new(GenerationId::new(), (recipe, made_of), launch);
        state.facts.sizes.refuses_vcpus = refuses_vcpus;
        let state = Arc::new(state);
        let mut generations = self.generations.lock().unwrap();
        generations.push(Arc::clone(&state));
        let mut disk = self.disk.lock().unwrap();
        disk.all.push(generations.len() - 1);
        disk.current = Some(generations.len() - 1);
        Arc::new(Generation(state))
    }

    /// Nothing but the current generation is kept on disk.
    pub(crate) fn removes_earlier(&self) {
        let mut disk = self.disk.lock().unwrap();
        let current = disk.current;
        disk.all.retain(|at| Some(*at) == current);
    }

    /// Removes a generation that is neither current nor held.
    pub(super) fn drop_kept(&self, id: &GenerationId) -> bool {
        let mut disk = self.disk.lock().unwrap();
        let all = self.generations.lock().unwrap();
        let at = all.iter().position(|state| state.facts.id == *id).unwrap();
        let is_held = Arc::strong_count(&all[at]) > 1;
        if disk.current == Some(at) || is_held {
            return false;
        }
        disk.all.retain(|on_disk| *on_disk != at);
        true
    }

    /// The names of those that are on disk, the oldest first.
    pub(crate) fn on_disk(&self) -> Vec<String> {
        let disk = self.disk.lock().unwrap();
        let all = self.generations.lock().unwrap();
        let names = disk.all.iter().map(|at| all[*at].facts.id.to_string());
        names.collect()
    }

    /// The name of the generation that is current on disk.
    pub(crate) fn current_on_disk(&self) -> String {
        let at = self.disk.lock().unwrap().current.unwrap();
        self.generations.lock().unwrap()[at].facts.id.to_string()
    }

    pub(super) fn earlier(&self) -> Option<Arc<dyn LiveGeneration>> {
        let mut disk = self.disk.lock().unwrap();
        let current = disk.current;
        let mut earlier = disk.all.iter().rev().copied();
        let at = earlier.find(|at| current.is_none_or(|current| *at < current))?;
        disk.current = Some(at);
        let state = Arc::clone(&self.generations.lock().unwrap()[at]);
        Some(Arc::new(Generation(state)))
    }

    pub(super) async fn launch(
        &self,
        generation: &Arc<dyn LiveGeneration>,
        order: CloneOrder,
    ) -> Result<Arc<dyn LiveClone>, CloneFailure> {
        let _counted = Counted::new(&self.launching, &self.launching_most);
        self.launches_begun.fetch_add(1, Ordering::SeqCst);
        let of_it = state_of(generation).launch;
        let launch = of_it.unwrap_or_else(|| self.script().next_launch());
        match launch {
            Launch::Up => {}
            Launch::UpAfter(time) => takes(time).await,
            Launch::UpAfterTurns(turns) => {
                for _ in 0..turns {
                    yield_now().await;
                }
            }
            Launch::Fails => return Err(failure(Fault::Clone, "the guest did not answer")),
            Launch::FindsDamage => {
                return Err(failure(Fault::Generation, "the digest of state is wrong"));
            }
            Launch::LacksHypervisor => {
                return Err(failure(Fault::Host, "/usr/bin/qemu cannot be read: gone"));
            }
            Launch::Panics => panic!("the script says so"),
            Launch::Hangs => std::future::pending().await,
        }
        let clone = Arc::new(Clone::new(
            generation.facts().id.clone(),
            order,
            &mut self.script(),
        ));
        self.clones
            .lock()
            .unwrap()
            .insert(clone.id.clone(), Arc::clone(&clone));
        Ok(Arc::new(Handle::new(clone, &self.era)))
    }

    pub(super) async fn make(
        &self,
        spec: &TemplateSpec,
        report: StepReport,
    ) -> Result<Arc<dyn LiveGeneration>, BoxError> {
        let _counted = Counted::new(&self.building, &self.building_most);
        let build = self.script().next_build();
        report(BuildStep::Booting);
        let mut gate = self.build_gate.subscribe();
        gate.wait_for(|open| *open).await?;
        takes(Duration::from_secs(3)).await;
        match build {
            Build::Succeeds => {
                report(BuildStep::Publishing);
                let recipe = self.script().recipe;
                Ok(self.generation_of(recipe, Some(spec.clone())))
            }
            Build::FindsNoRoom => Err(Box::new(BuildError::Room(RoomError::Host {
                available: 1,
                needed: 2,
            }))),
            Build::Fails => Err("booting: the guest did not answer within 120 s".into()),
            Build::Hangs => std::future::pending().await,
        }
    }
}

fn failure(fault: Fault, why: &'static str) -> CloneFailure {
    CloneFailure {
        phase: Phase::Load,
        fault,
        source: why.into(),
    }
}
