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
    AdoptedClone, AdoptedLease, BoxError, BuildStep, CloneFailure, FoundGeneration,
    GenerationFacts, LaunchOrder, LiveClone, LiveGeneration, Mint, NoWayBack, RecordState,
    StaleField, StepReport,
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
    fn known(&self, id: &GenerationId) -> Option<Arc<dyn LiveGeneration>> {
        let all = self.generations.lock().unwrap();
        let state = all.iter().find(|state| state.facts.id == *id)?;
        Some(Arc::new(Generation(Arc::clone(state))))
    }

    /// A new one, published.
    pub(crate) fn generation(&self, recipe: u32) -> Arc<dyn LiveGeneration> {
        self.generation_of(recipe, None)
    }

    fn generation_of(&self, recipe: u32, made_of: Option<TemplateSpec>) -> Arc<dyn LiveGeneration> {
        let launch = self.script().of_generation;
        let state = GenerationState::new(GenerationId::new(), (recipe, made_of), launch);
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

    async fn make(
        &self,
        spec: &TemplateSpec,
        report: StepReport,
    ) -> Result<Arc<dyn LiveGeneration>, BoxError> {
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
                Ok(self.generation_of(recipe, Some(spec.clone())))
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
pub(crate) struct Shared(Arc<FakeFactory>, usize);

impl Shared {
    pub(crate) fn new(factory: &Arc<FakeFactory>) -> Self {
        Self(Arc::clone(factory), factory.era.load(Ordering::SeqCst))
    }
}

impl Mint for Shared {
    fn find<'a>(
        &'a self,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<FoundGeneration, BoxError>> {
        let on_disk = self.0.script().on_disk;
        self.0.finds.fetch_add(1, Ordering::SeqCst);
        let generation = GenerationId::new();
        async move {
            match on_disk {
                OnDisk::Valid => {
                    let found = self.0.script().found.clone();
                    let known = found.and_then(|id| self.0.known(&id));
                    let made_of = Some(spec.clone());
                    let found = known.unwrap_or_else(|| self.0.generation_of(1, made_of));
                    Ok(FoundGeneration::Current(found))
                }
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
        spec: &'a TemplateSpec,
        report: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>> {
        async {
            let made = self.0.make(spec, report).await?;
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
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Vec<StaleField>> {
        let (now, state) = (self.0.script().recipe, state_of(generation));
        let mut fields = stale(state.recipe, now);
        let parameters = |spec: &TemplateSpec| spec.kernel_params.clone();
        let was = state.made_of.as_ref().map(parameters);
        if let Some(built_with) = was.filter(|was| *was != spec.kernel_params) {
            fields.push(StaleField {
                field: "kernel_params".to_owned(),
                built_with,
                now: spec.kernel_params.clone(),
            });
        }
        async move { fields }.boxed()
    }

    fn damage<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
    ) -> BoxFuture<'a, Option<String>> {
        let is_damaged = self.0.script().damaged.as_ref() == Some(&generation.facts().id);
        async move { is_damaged.then(|| "memory: it is cut short".to_owned()) }.boxed()
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
            self.0.launch(generation, order).await
        }
        .boxed()
    }
}
