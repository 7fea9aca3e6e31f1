//! The factory itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;
use vmint_cache::{
    BoxError, BuildStep, CloneFailure, FoundGeneration, GenerationFacts, LaunchOrder, LiveClone,
    LiveGeneration, Mint, NoWayBack, StaleField, StepReport,
};
use vmint_factory::{GenerationId, Phase, TemplateSpec, VmId};

use super::generation::{Generation, GenerationState};
use super::machine::{Clone, Handle};
use super::script::{Build, Launch, OnDisk, Script};

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

    /// A new one, published.
    pub(crate) fn generation(&self, recipe: u32) -> Arc<dyn LiveGeneration> {
        let launch = self.script().of_generation;
        let state = GenerationState::new(recipe, launch);
        let mut generations = self.generations.lock().unwrap();
        generations.push(Arc::clone(&state));
        let mut disk = self.disk.lock().unwrap();
        disk.all.push(generations.len() - 1);
        disk.current = Some(generations.len() - 1);
        Arc::new(Generation(state))
    }

    /// The name of the generation that is current on disk.
    pub(crate) fn current_on_disk(&self) -> String {
        let at = self.disk.lock().unwrap().current.unwrap();
        self.generations.lock().unwrap()[at].facts.id.to_string()
    }

    fn earlier(&self) -> Option<Arc<dyn LiveGeneration>> {
        let mut disk = self.disk.lock().unwrap();
        let current = disk.current;
        let mut earlier = disk.all.iter().rev().copied();
        let at = earlier.find(|at| current.is_none_or(|current| *at < current))?;
        disk.current = Some(at);
        let state = Arc::clone(&self.generations.lock().unwrap()[at]);
        Some(Arc::new(Generation(state)))
    }

    async fn launch(
        &self,
        generation: &Arc<dyn LiveGeneration>,
        order: LaunchOrder,
    ) -> Result<Arc<dyn LiveClone>, CloneFailure> {
        let _counted = Counted::new(&self.launching, &self.launching_most);
        self.launches_begun.fetch_add(1, Ordering::SeqCst);
        let of_it = state_of(generation).launch;
        let launch = of_it.unwrap_or_else(|| self.script().next_launch());
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
        let clone = Arc::new(Clone::new(order, &mut self.script()));
        self.clones
            .lock()
            .unwrap()
            .insert(clone.id.clone(), Arc::clone(&clone));
        Ok(Arc::new(Handle(clone)))
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
                let recipe = self.script().recipe;
                Ok(self.generation(recipe))
            }
            Build::Fails => Err("booting: the guest did not answer within 120 s".into()),
            Build::Hangs => std::future::pending().await,
        }
    }
}

fn state_of(generation: &Arc<dyn LiveGeneration>) -> &Arc<GenerationState> {
    let made = generation.as_any().downcast_ref::<Generation>();
    &made.unwrap().0
}

fn stale(recipe: u32, now: u32) -> Vec<StaleField> {
    let field = || StaleField {
        field: "kernel".to_owned(),
        built_with: recipe.to_string(),
        now: now.to_string(),
    };
    (recipe != now).then(field).into_iter().collect()
}

fn failure(damage: bool, why: &'static str) -> CloneFailure {
    CloneFailure {
        phase: Phase::Load,
        damage,
        source: why.into(),
    }
}

/// The factory as the cache gets it.
pub(crate) struct Shared(pub Arc<FakeFactory>);

impl Mint for Shared {
    fn find<'a>(&'a self, _: &'a TemplateSpec) -> BoxFuture<'a, Result<FoundGeneration, BoxError>> {
        let on_disk = self.0.script().on_disk;
        let generation = GenerationId::new();
        async move {
            match on_disk {
                OnDisk::Valid => Ok(FoundGeneration::Current(self.0.generation(1))),
                OnDisk::Stale => Ok(FoundGeneration::Stale {
                    generation,
                    fields: stale(0, 1),
                    restorable: None,
                }),
                OnDisk::Restorable => {
                    let found = self.0.generation(0);
                    Ok(FoundGeneration::Stale {
                        generation: found.facts().id.clone(),
                        fields: stale(0, 1),
                        restorable: Some(found),
                    })
                }
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
        _: &'a TemplateSpec,
        report: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>> {
        self.0.make(report).boxed()
    }

    fn generations<'a>(
        &'a self,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Vec<GenerationFacts>, BoxError>> {
        async {
            let disk = self.0.disk.lock().unwrap();
            let all = self.0.generations.lock().unwrap();
            let on_disk = disk.all.iter().rev();
            Ok(on_disk.map(|at| all[*at].facts.clone()).collect())
        }
        .boxed()
    }

    fn rollback<'a>(
        &'a self,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, NoWayBack>> {
        let none = || NoWayBack::Impossible("there is no earlier generation".into());
        async move { self.0.earlier().ok_or_else(none) }.boxed()
    }

    fn give_up<'a>(
        &'a self,
        _: &'a TemplateSpec,
        given_up: &'a GenerationId,
        back_to: &'a GenerationId,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        async move {
            let all = self.0.generations.lock().unwrap();
            let is = |at: usize, id: &GenerationId| all[at].facts.id == *id;
            let mut disk = self.0.disk.lock().unwrap();
            disk.all.retain(|at| !is(*at, given_up));
            disk.current = disk.all.iter().copied().find(|at| is(*at, back_to));
            Ok(())
        }
        .boxed()
    }

    fn staleness<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Vec<StaleField>> {
        let now = self.0.script().recipe;
        async move { stale(state_of(generation).recipe, now) }.boxed()
    }

    fn mint<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        order: LaunchOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        self.0.launch(generation, order).boxed()
    }
}
