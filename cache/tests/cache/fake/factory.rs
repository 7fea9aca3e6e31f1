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
    BoxError, BuildStep, CloneFailure, FoundGeneration, LaunchOrder, LiveClone, LiveGeneration,
    Mint, StaleField, StepReport,
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
    /// Templates that were removed from disk, each with the number of its generations that were in use.
    pub forgotten: Mutex<Vec<(String, usize)>>,
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

    fn generation(&self) -> Arc<dyn LiveGeneration> {
        let state = Arc::new(GenerationState::default());
        self.generations.lock().unwrap().push(Arc::clone(&state));
        Arc::new(Generation::new(state))
    }

    async fn launch(&self, order: LaunchOrder) -> Result<Arc<dyn LiveClone>, CloneFailure> {
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
pub(crate) struct Shared(pub Arc<FakeFactory>);

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
                OnDisk::Valid => Ok(FoundGeneration::Current(self.0.generation())),
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

    fn forget<'a>(
        &'a self,
        template: &'a str,
        in_use: Vec<GenerationId>,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        let forgotten = (template.to_owned(), in_use.len());
        self.0.forgotten.lock().unwrap().push(forgotten);
        async { Ok(()) }.boxed()
    }

    fn mint<'a>(
        &'a self,
        _: &'a Arc<dyn LiveGeneration>,
        order: LaunchOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        self.0.launch(order).boxed()
    }
}
