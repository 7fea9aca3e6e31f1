//! A factory that does what the test says, and remembers what was done to it.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
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
    BoxError, BuildStep, CloneFacts, CloneFailure, ExecError, ExecOutcome, ExecRequest,
    FoundGeneration, GenerationFacts, GuestError, Identity, LaunchOrder, LiveClone, LiveGeneration,
    Mint, RecordState, StaleField, StepReport,
};
use vmint_factory::{Accel, GenerationId, Phase, Phases, TemplateSpec, VmId};

/// How the next launch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launch {
    Up,
    UpAfter(Duration),
    /// Takes so many turns of the scheduler, and no time.
    UpAfterTurns(u32),
    Fails,
    FindsDamage,
    Panics,
    Hangs,
}

/// How the next build goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    Succeeds,
    Fails,
    Hangs,
}

/// What is on disk at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDisk {
    Valid,
    Stale,
    Damaged,
    Nothing,
    Unreadable,
    Hangs,
}

/// The script: each list is used up from the front, then the last word holds.
pub(crate) struct Script {
    pub on_disk: OnDisk,
    pub launches: VecDeque<Launch>,
    pub launch: Launch,
    pub builds: VecDeque<Build>,
    pub build: Build,
    /// Hostnames that guests do not take, counted down.
    pub hostnames_refused: usize,
    /// Whether guests answer pings.
    pub pings_answered: bool,
    /// Whether machines end when they are told to.
    pub ends: bool,
}

pub(crate) struct FakeFactory {
    pub script: Mutex<Script>,
    pub clones: Mutex<BTreeMap<VmId, Arc<Clone>>>,
    pub generations: Mutex<Vec<Arc<GenerationState>>>,
    pub launches_begun: AtomicUsize,
    pub launching: Arc<AtomicUsize>,
    pub launching_most: AtomicUsize,
    pub building: Arc<AtomicUsize>,
    pub building_most: AtomicUsize,
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
        let script = Script {
            on_disk: OnDisk::Valid,
            launches: VecDeque::new(),
            launch: Launch::UpAfter(Duration::from_millis(50)),
            builds: VecDeque::new(),
            build: Build::Succeeds,
            hostnames_refused: 0,
            pings_answered: true,
            ends: true,
        };
        Arc::new(Self {
            script: Mutex::new(script),
            clones: Mutex::default(),
            generations: Mutex::default(),
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

    fn generation(&self) -> Arc<dyn LiveGeneration> {
        let state = Arc::new(GenerationState::default());
        self.generations.lock().unwrap().push(Arc::clone(&state));
        let facts = GenerationFacts {
            id: GenerationId::new(),
            built_at: Timestamp::now(),
            accel: Accel::Tcg,
            qemu_version: "10.0.0".to_owned(),
            vcpus: 1,
            memory_mib: 256,
            boot_phases: Phases::default(),
            build_phases: vec![("booting".to_owned(), Duration::from_secs(2))],
            first_exec: Some(Duration::from_millis(3)),
            report: serde_json::json!({"canaries": 2}),
        };
        Arc::new(Generation { facts, state })
    }

    async fn launch(
        self: &FakeFactory,
        order: LaunchOrder,
    ) -> Result<Arc<dyn LiveClone>, CloneFailure> {
        let _counted = Counted::new(&self.launching, &self.launching_most);
        self.launches_begun.fetch_add(1, Ordering::SeqCst);
        let launch = {
            let mut script = self.script();
            let default = script.launch;
            script.launches.pop_front().unwrap_or(default)
        };
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
        let clone = Arc::new(Clone::new(order));
        self.clones
            .lock()
            .unwrap()
            .insert(clone.id.clone(), Arc::clone(&clone));
        let script = self.script();
        clone.ends.store(usize::from(script.ends), Ordering::SeqCst);
        clone
            .answers
            .store(usize::from(script.pings_answered), Ordering::SeqCst);
        drop(script);
        Ok(Arc::new(Handle(clone, self.refusals())))
    }

    fn refusals(&self) -> Arc<AtomicUsize> {
        Arc::new(AtomicUsize::new({
            let mut script = self.script();
            let refuses = script.hostnames_refused > 0;
            script.hostnames_refused = script.hostnames_refused.saturating_sub(1);
            usize::from(refuses)
        }))
    }

    async fn make(&self, report: StepReport) -> Result<Arc<dyn LiveGeneration>, BoxError> {
        let _counted = Counted::new(&self.building, &self.building_most);
        let build = {
            let mut script = self.script();
            let default = script.build;
            script.builds.pop_front().unwrap_or(default)
        };
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
        _: &'a TemplateSpec,
        report: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>> {
        self.0.make(report).boxed()
    }

    fn mint<'a>(
        &'a self,
        _: &'a Arc<dyn LiveGeneration>,
        order: LaunchOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        self.0.launch(order).boxed()
    }
}

/// What became of a generation.
#[derive(Default)]
pub(crate) struct GenerationState {
    pub retired: AtomicUsize,
    pub dropped: AtomicUsize,
}

struct Generation {
    facts: GenerationFacts,
    state: Arc<GenerationState>,
}

impl LiveGeneration for Generation {
    fn facts(&self) -> &GenerationFacts {
        &self.facts
    }
    fn memory_bytes_on_disk(&self) -> u64 {
        1 << 20
    }
    fn retire(&self) {
        self.state.retired.fetch_add(1, Ordering::SeqCst);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.state.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// One machine.
pub(crate) struct Clone {
    pub id: VmId,
    pub order: LaunchOrder,
    pub hostname: Mutex<String>,
    pub records: Mutex<Vec<RecordState>>,
    pub resumed: AtomicUsize,
    ends: AtomicUsize,
    answers: AtomicUsize,
    end: watch::Sender<Option<String>>,
}

impl Clone {
    fn new(order: LaunchOrder) -> Self {
        Self {
            id: order.id.clone(),
            hostname: Mutex::new(order.hostname.clone()),
            records: Mutex::default(),
            resumed: AtomicUsize::new(0),
            ends: AtomicUsize::new(1),
            answers: AtomicUsize::new(1),
            end: watch::Sender::new(None),
            order,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.end.borrow().is_none()
    }

    /// Its process is gone.
    pub(crate) fn dies(&self, how: &str) {
        self.end.send_if_modified(|end| {
            let was_alive = end.is_none();
            end.get_or_insert_with(|| how.to_owned());
            was_alive
        });
    }

    pub(crate) fn falls_silent(&self) {
        self.answers.store(0, Ordering::SeqCst);
    }

    /// The state in its last record.
    pub(crate) fn recorded(&self) -> Option<RecordState> {
        self.records.lock().unwrap().last().cloned()
    }

    async fn ended(&self) -> String {
        let mut end = self.end.subscribe();
        let end = end.wait_for(Option::is_some).await.unwrap();
        end.clone().unwrap()
    }
}

/// The handle to a machine: it ends with the last one. With it, whether it refuses hostnames.
struct Handle(Arc<Clone>, Arc<AtomicUsize>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.dies("its last handle was dropped");
    }
}

impl LiveClone for Handle {
    fn facts(&self) -> CloneFacts {
        CloneFacts {
            id: self.0.id.clone(),
            pid: 1,
            created_at: Timestamp::now(),
            phases: Phases::default(),
            console_socket: PathBuf::from("/run/vmint/console"),
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            hostname: self.0.hostname.lock().unwrap().clone(),
            machine_id: "f".repeat(32),
        }
    }

    fn ended(&self) -> BoxFuture<'_, String> {
        self.0.ended().boxed()
    }

    fn ping(&self, deadline: Duration) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            if self.0.answers.load(Ordering::SeqCst) == 0 {
                sleep(deadline).await;
                return Err("no answer".into());
            }
            Ok(())
        }
        .boxed()
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        async move {
            match request.argv[0].as_str() {
                "sleep" => std::future::pending().await,
                "missing" => Err(ExecError::Spawn {
                    argv0: "missing".to_owned(),
                    reason: "no".to_owned(),
                    errno: 2,
                }),
                "crash" => {
                    self.0.dies("it crashed");
                    Err(ExecError::Guest(GuestError::Closed))
                }
                _ => Ok(ExecOutcome {
                    exit_code: Some(0),
                    signal: None,
                    stdout: b"hello".to_vec(),
                    stderr: Vec::new(),
                    truncated: false,
                    elapsed: Duration::from_millis(1),
                }),
            }
        }
        .boxed()
    }

    fn set_hostname<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        async move {
            yield_now().await;
            if self.1.load(Ordering::SeqCst) > 0 {
                return Err("the guest refused".into());
            }
            name.clone_into(&mut self.0.hostname.lock().unwrap());
            Ok(())
        }
        .boxed()
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            yield_now().await;
            self.0.resumed.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    }

    fn record(&self, state: RecordState) -> io::Result<()> {
        if !self.0.is_alive() {
            return Err(io::Error::other("its directory is gone"));
        }
        self.0.records.lock().unwrap().push(state);
        Ok(())
    }

    fn end(&self) -> BoxFuture<'_, String> {
        async move {
            if self.0.ends.load(Ordering::SeqCst) > 0 {
                sleep(Duration::from_millis(20)).await;
                self.0.dies("it was ended");
            }
            self.0.ended().await
        }
        .boxed()
    }

    fn console(&self) -> io::Result<Vec<u8>> {
        Ok(b"console".to_vec())
    }

    fn anonymous_bytes(&self) -> io::Result<u64> {
        Ok(1000)
    }
}
