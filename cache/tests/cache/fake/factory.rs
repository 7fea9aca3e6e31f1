//! The factory itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;
use vmint_cache::{
    AdoptedClone, AdoptedLease, BoxError, BuildStep, CloneFailure, FoundGeneration, LaunchOrder,
    LiveClone, LiveGeneration, Mint, RecordState, StaleField, StepReport,
};
use vmint_factory::{GenerationId, Phase, TemplateSpec, VmId};

use super::generation::{Generation, GenerationState};
use super::machine::{Clone, Handle};
use super::script::{Build, Launch, OnDisk, Script};

pub(crate) struct FakeFactory {
    pub script: Mutex<Script>,
    pub clones: Mutex<BTreeMap<VmId, Arc<Clone>>>,
    pub generations: Mutex<Vec<Arc<GenerationState>>>,
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
                generation: self.generation_of(clone.generation.clone()),
                lease,
                is_paused: clone.order.paused,
                on_clone: clone.order.on_clone.clone(),
                vm: Arc::new(Handle::new(clone, &self.era)),
            })
        });
        adopted.collect()
    }

    fn generation(&self) -> Arc<dyn LiveGeneration> {
        self.generation_of(GenerationId::new())
    }

    fn generation_of(&self, id: GenerationId) -> Arc<dyn LiveGeneration> {
        let state = Arc::new(GenerationState::default());
        self.generations.lock().unwrap().push(Arc::clone(&state));
        Arc::new(Generation::new(id, state))
    }

    async fn launch(
        &self,
        generation: GenerationId,
        order: LaunchOrder,
    ) -> Result<Arc<dyn LiveClone>, CloneFailure> {
        let _counted = Counted::new(&self.launching, &self.launching_most);
        self.launches_begun.fetch_add(1, Ordering::SeqCst);
        let launch = self.script().next_launch();
        match launch {
            Launch::Up => {}
            Launch::UpAfter(time) => sleep(time).await,
            Launch::UpAfterTurns(turns) => {
                for _ in 0..turns {
                    yield_now().await;
                }
            }
            Launch::Fails => return Err(failure(false, "the guest did not answer")),
            Launch::FindsDamage => return Err(failure(true, "the digest of state is wrong")),
            Launch::Panics => panic!("the script says so"),
            Launch::Hangs => std::future::pending().await,
        }
        let clone = Arc::new(Clone::new(generation, order, &mut self.script()));
        self.clones
            .lock()
            .unwrap()
            .insert(clone.id.clone(), Arc::clone(&clone));
        Ok(Arc::new(Handle::new(clone, &self.era)))
    }

    async fn make(&self, report: StepReport) -> Result<Arc<dyn LiveGeneration>, BoxError> {
        let _counted = Counted::new(&self.building, &self.building_most);
        let build = self.script().next_build();
        report(BuildStep::Booting);
        let mut gate = self.build_gate.subscribe();
        gate.wait_for(|open| *open).await?;
        sleep(Duration::from_secs(3)).await;
        match build {
            Build::Succeeds => {
                report(BuildStep::Publishing);
                Ok(self.generation())
            }
            Build::Fails => Err("booting: the guest did not answer within 120 s".into()),
            Build::Hangs => std::future::pending().await,
        }
    }
}

fn failure(damage: bool, why: &'static str) -> CloneFailure {
    CloneFailure {
        phase: Phase::Load,
        damage,
        source: why.into(),
    }
}

/// The factory as the cache gets it.
pub(crate) struct Shared(Arc<FakeFactory>, usize);

impl Shared {
    pub(crate) fn new(factory: &Arc<FakeFactory>) -> Self {
        Self(Arc::clone(factory), factory.era.load(Ordering::SeqCst))
    }
}

impl Mint for Shared {
    fn find<'a>(&'a self, _: &'a TemplateSpec) -> BoxFuture<'a, Result<FoundGeneration, BoxError>> {
        let on_disk = self.0.script().on_disk;
        self.0.finds.fetch_add(1, Ordering::SeqCst);
        let generation = GenerationId::new();
        let stale = || {
            vec![StaleField {
                field: "kernel".to_owned(),
                built_with: "a".to_owned(),
                now: "b".to_owned(),
            }]
        };
        async move {
            match on_disk {
                OnDisk::Valid => {
                    let found = self.0.script().found.clone();
                    let id = found.unwrap_or_default();
                    Ok(FoundGeneration::Current(self.0.generation_of(id)))
                }
                OnDisk::Stale => Ok(FoundGeneration::Stale {
                    generation,
                    fields: stale(),
                }),
                OnDisk::Damaged => Ok(FoundGeneration::Damaged {
                    generation,
                    reason: "cut short".to_owned(),
                }),
                OnDisk::Nothing => Ok(FoundGeneration::None),
                OnDisk::Unreadable => Err("permission denied".into()),
                OnDisk::Hangs => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn build<'a>(
        &'a self,
        spec: &'a TemplateSpec,
        report: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>> {
        async {
            let made = self.0.make(report).await?;
            self.0.built.lock().unwrap().push(spec.clone());
            Ok(made)
        }
        .boxed()
    }

    fn forget<'a>(&'a self, template: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        self.0.forgotten.lock().unwrap().push(template.to_owned());
        async { Ok(()) }.boxed()
    }

    fn adopt<'a>(&'a self, _: &'a [TemplateSpec]) -> BoxFuture<'a, Vec<AdoptedClone>> {
        async { self.0.adopted() }.boxed()
    }

    fn mint<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        order: LaunchOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        async move {
            if self.0.era.load(Ordering::SeqCst) != self.1 {
                // Whoever asks was killed.
                return std::future::pending().await;
            }
            self.0.launch(generation.facts().id.clone(), order).await
        }
        .boxed()
    }
}
