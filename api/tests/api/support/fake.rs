//! A factory whose machines do what the tests say.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use vmint_cache::{
    AttachError, Attached, BindError, Binding, BoxError, BuildStep, CloneFacts, CloneFailure,
    CloneOrder, ConsoleReader, ExecError, ExecOutcome, ExecRequest, ExecStream, Fault, FileError,
    FileReader, FileWriter, GrowError, Guest, GuestError, Identity, IdentityDigest, LiveClone,
    LiveGeneration, Mint, PartialOutput, Process, ProcessError, ProcessOrder, RecordState, Size,
    SocketOwner, StepReport, StreamRequest, WriteOptions,
};
use vmint_factory::{Confinement, OpenDevices, Phase, Phases, ProcessState, VmId};

use super::mint::{Generation, Shared};
use super::processes::Processes;
use super::streams::Guests;

/// The script of a factory: what is not changed succeeds at once.
pub(crate) struct FakeFactory {
    /// Clones come up while this is true.
    pub(crate) launches: watch::Sender<bool>,
    /// Builds go on while this is true.
    pub(crate) builds: watch::Sender<bool>,
    /// Whether builds end with an error.
    pub(crate) builds_fail: AtomicBool,
    /// Whether a generation is on disk at the start.
    pub(crate) on_disk: AtomicBool,
    /// Generations that are on disk, the oldest first.
    pub(crate) disk: Mutex<Vec<Arc<dyn LiveGeneration>>>,
    /// Whether what they are built from has changed.
    pub(crate) is_stale: AtomicBool,
    /// Whether the hypervisor's program cannot be read.
    pub(crate) is_unverified: AtomicBool,
    /// Whether no clone comes up any more.
    pub(crate) launches_fail: AtomicBool,
    /// What was bound last, and to whom sockets were given last.
    pub(crate) bound: Mutex<Binding>,
    pub(crate) owner: Mutex<Option<SocketOwner>>,
    /// What the machines write to their consoles from now on.
    pub(crate) console: Arc<watch::Sender<Vec<u8>>>,
    /// Every record of any machine.
    pub(crate) records: Mutex<Vec<RecordState>>,
    /// Machines that live.
    pub(crate) alive: Arc<AtomicUsize>,
    /// Times that the memory of any machine was measured.
    pub(crate) measured: AtomicUsize,
    /// What the guests do with streams and files.
    pub(crate) guests: Arc<Guests>,
}

impl FakeFactory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            launches: watch::Sender::new(true),
            builds: watch::Sender::new(true),
            builds_fail: AtomicBool::new(false),
            on_disk: AtomicBool::new(true),
            disk: Mutex::default(),
            is_stale: AtomicBool::new(false),
            is_unverified: AtomicBool::new(false),
            launches_fail: AtomicBool::new(false),
            bound: Mutex::default(),
            console: Arc::default(),
            owner: Mutex::default(),
            records: Mutex::default(),
            alive: Arc::default(),
            measured: AtomicUsize::new(0),
            guests: Guests::new(),
        })
    }

    pub(crate) fn mint(self: &Arc<Self>) -> Arc<dyn Mint> {
        Arc::new(Shared(self.clone()))
    }

    pub(super) async fn build(
        &self,
        report: StepReport,
    ) -> Result<Arc<dyn LiveGeneration>, BoxError> {
        report(BuildStep::Booting);
        open(&self.builds).await;
        if self.builds_fail.load(Ordering::SeqCst) {
            return Err("booting: the guest did not answer within 120 s".into());
        }
        Ok(self.made())
    }

    pub(super) fn made(&self) -> Arc<dyn LiveGeneration> {
        let made = Generation::made();
        self.disk.lock().unwrap().push(Arc::clone(&made));
        made
    }

    pub(super) async fn launch(
        self: &Arc<Self>,
        order: CloneOrder,
    ) -> Result<Arc<dyn LiveClone>, CloneFailure> {
        open(&self.launches).await;
        if self.launches_fail.load(Ordering::SeqCst) {
            return Err(CloneFailure {
                phase: Phase::Agent,
                fault: Fault::Clone,
                source: "the guest did not answer".into(),
            });
        }
        self.alive.fetch_add(1, Ordering::SeqCst);
        let (id, hostname) = (order.id, Mutex::new(order.hostname));
        Ok(Arc::new(Machine {
            id,
            hostname,
            life: Arc::new(Life {
                end: watch::Sender::new(None),
                alive: self.alive.clone(),
            }),
            guests: self.guests.clone(),
            processes: Processes::default(),
            created_at: Timestamp::now(),
            factory: Arc::clone(self),
        }))
    }
}

/// Waits for a gate.
async fn open(gate: &watch::Sender<bool>) {
    let _ = gate.subscribe().wait_for(|open| *open).await;
}

struct Machine {
    id: VmId,
    hostname: Mutex<String>,
    life: Arc<Life>,
    guests: Arc<Guests>,
    processes: Processes,
    created_at: Timestamp,
    factory: Arc<FakeFactory>,
}

/// Whether a machine lives, and how it ended.
struct Life {
    end: watch::Sender<Option<String>>,
    alive: Arc<AtomicUsize>,
}

impl Life {
    fn dies(&self, how: &str) {
        let died = self.end.send_if_modified(|end| {
            let lived = end.is_none();
            end.get_or_insert_with(|| how.to_owned());
            lived
        });
        if died {
            self.alive.fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn wait(&self) -> String {
        let mut end = self.end.subscribe();
        let end = end.wait_for(Option::is_some).await.unwrap();
        end.clone().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.life.dies("dropped");
    }
}

impl Machine {
    fn stream(&self, request: StreamRequest) -> Result<ExecStream, ExecError> {
        let (life, guests) = (self.life.clone(), self.guests.clone());
        let plain = ExecRequest {
            argv: request.argv.clone(),
            env: request.env.clone(),
            cwd: request.cwd.clone(),
            timeout: request.timeout,
            ..ExecRequest::default()
        };
        let plain = async move |stdin: Vec<u8>| {
            run(
                &life,
                &guests,
                ExecRequest {
                    stdin: stdin.into(),
                    ..plain
                },
            )
            .await
        };
        self.guests.exec(request, plain)
    }
}

/// What the programs of the fake guest do, by name.
async fn run(life: &Life, guests: &Guests, request: ExecRequest) -> Result<ExecOutcome, ExecError> {
    let spawn = |errno| ExecError::Spawn {
        argv0: request.argv[0].clone(),
        reason: "no".to_owned(),
        errno,
    };
    let (mut exit_code, mut signal, mut stdout) = (Some(0), None, Vec::new());
    match request.argv[0].as_str() {
        "echo" => stdout = format!("{}\n", request.argv[1..].join(" ")).into_bytes(),
        "cat" => stdout = request.stdin.to_vec(),
        "env" => stdout = format!("{:?} {:?}", request.env, request.cwd).into_bytes(),
        "binary" => stdout = vec![0xff, 0x00],
        "exit" => exit_code = request.argv[1].parse().ok(),
        "signal" => (exit_code, signal) = (None, Some(9)),
        "missing" => return Err(spawn(2)),
        "locked" => return Err(spawn(13)),
        "cut" => stdout = "aä".as_bytes()[..2].to_vec(),
        "crowded" => return Err(ExecError::TooMany { limit: 64 }),
        "slow" => {
            return Err(ExecError::Deadline {
                after: request.timeout.unwrap(),
                output: Box::new(PartialOutput::newest(
                    b"so far\n".to_vec(),
                    vec![0xff],
                    false,
                )),
            });
        }
        "mute" => return Err(ExecError::Guest(GuestError::Closed)),
        "crash" => life.dies("killed by signal 11"),
        "panic" => panic!("the script says so"),
        "hang" => guests.runs_until_dropped().await,
        _ => {}
    }
    let truncated = request.argv[0] == "cut";
    let (stderr, elapsed) = (b"err\n".to_vec(), Duration::from_micros(1500));
    Ok(ExecOutcome {
        exit_code,
        signal,
        stdout,
        stderr,
        truncated,
        elapsed,
    })
}

impl Guest for Machine {
    fn ping(&self, _: Duration) -> BoxFuture<'_, Result<(), GuestError>> {
        async { Ok(()) }.boxed()
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        if self.guests.is_outdated() {
            let error = ExecError::Guest(GuestError::Outdated {
                what: "running a command",
            });
            return async { Err(error) }.boxed();
        }
        run(&self.life, &self.guests, request).boxed()
    }

    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>> {
        async move {
            if binding.files.iter().any(|file| file.path == "/folder") {
                return Err(BindError::Refused {
                    reason: "/folder: is a directory".to_owned(),
                });
            }
            *self.factory.bound.lock().unwrap() = binding.clone();
            let Some(name) = &binding.hostname else {
                return Ok(());
            };
            if name == "refused" {
                return Err(BindError::Guest(GuestError::Closed));
            }
            name.clone_into(&mut self.hostname.lock().unwrap());
            Ok(())
        }
        .boxed()
    }

    fn exec_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<ExecStream, ExecError>> {
        async move { self.stream(request) }.boxed()
    }

    fn start_process(&self, order: ProcessOrder) -> BoxFuture<'_, Result<Process, ProcessError>> {
        async move {
            let stream = self.stream(order.command.clone());
            self.processes.start(order, stream)
        }
        .boxed()
    }

    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>, ProcessError>> {
        async {
            if self.guests.is_outdated() {
                return Err(ProcessError::Exec(ExecError::Guest(GuestError::Outdated {
                    what: "listing processes",
                })));
            }
            Ok(self.processes.list())
        }
        .boxed()
    }

    fn find_process<'a>(
        &'a self,
        process: &'a str,
    ) -> BoxFuture<'a, Result<Process, ProcessError>> {
        async { self.processes.find(process) }.boxed()
    }

    fn kept_output<'a>(
        &'a self,
        process: &'a str,
    ) -> BoxFuture<'a, Result<PartialOutput, ProcessError>> {
        async { self.processes.kept(process) }.boxed()
    }

    fn attach_process<'a>(
        &'a self,
        process: &'a str,
        replay: bool,
    ) -> BoxFuture<'a, Result<ExecStream, ProcessError>> {
        async move { self.processes.attach(process, replay) }.boxed()
    }

    fn signal_process<'a>(
        &'a self,
        process: &'a str,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), ProcessError>> {
        async move { self.processes.signal(process, signal) }.boxed()
    }

    fn end_process<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<(), ProcessError>> {
        async { self.processes.end(process) }.boxed()
    }

    fn read_file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileReader, FileError>> {
        self.guests.read(path).boxed()
    }

    fn write_file<'a>(
        &'a self,
        path: &'a str,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<FileWriter, FileError>> {
        async move { self.guests.write(path, options) }.boxed()
    }
}

impl LiveClone for Machine {
    fn facts(&self) -> CloneFacts {
        CloneFacts {
            id: self.id.clone(),
            pid: 4242,
            created_at: self.created_at,
            phases: Phases {
                spawn: Duration::from_micros(33_250),
                total: Duration::from_millis(80),
                ..Phases::default()
            },
            digest: IdentityDigest {
                random: self.id.to_string(),
                uuid: format!("uuid {}", self.id),
            },
            console_socket: PathBuf::from("/run/vmint/vm/x/console.sock"),
            vsock_cid: None,
            confinement: Arc::new([Confinement {
                name: "landlock".to_owned(),
                on: true,
                reason: "ABI 7".to_owned(),
            }]),
            runtime_socket: PathBuf::from("/run/vmint/vm/x/runtime.sock"),
            agent: self.guests.agent(),
        }
    }

    fn id(&self) -> &VmId {
        &self.id
    }

    fn identity(&self) -> Identity {
        Identity {
            hostname: self.hostname.lock().unwrap().clone(),
            machine_id: format!("{:f<32}", self.id.to_string()),
        }
    }

    fn process(&self) -> ProcessState {
        if self.life.wait().now_or_never().is_some() {
            ProcessState::Ended
        } else {
            ProcessState::Runs
        }
    }

    fn last_heard(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn ended(&self) -> BoxFuture<'_, String> {
        self.life.wait().boxed()
    }

    fn attach<'a>(
        &'a self,
        devices: &'a OpenDevices,
    ) -> BoxFuture<'a, Result<Attached, AttachError>> {
        async {
            let names = |kind, count| (0..count).map(|at| format!("{kind}{at}")).collect();
            let (nics, disks) = (devices.nics.len(), devices.disks.len());
            Ok(devices.attached(&self.id, names("eth", nics), names("vd", disks)))
        }
        .boxed()
    }

    fn grow(&self, wanted: Size) -> BoxFuture<'_, Result<Size, GrowError>> {
        async move { Ok(wanted) }.boxed()
    }

    fn give_sockets(&self, owner: SocketOwner) -> io::Result<bool> {
        *self.factory.owner.lock().unwrap() = Some(owner);
        Ok(true)
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async { Ok(()) }.boxed()
    }

    fn clock_is_off(&self) -> bool {
        false
    }

    fn set_clock(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async { Ok(()) }.boxed()
    }

    fn record(&self, state: RecordState) -> io::Result<()> {
        self.factory.records.lock().unwrap().push(state);
        Ok(())
    }

    fn end(&self) -> BoxFuture<'_, String> {
        async {
            self.life.dies("ended");
            self.life.wait().await
        }
        .boxed()
    }

    fn leave(&self) -> BoxFuture<'_, String> {
        self.life.wait().boxed()
    }

    fn console(&self) -> io::Result<Vec<u8>> {
        Ok(b"[    0.000000] Linux\n".to_vec())
    }

    fn follow_console(&self) -> io::Result<Box<dyn ConsoleReader>> {
        Ok(Box::new(Written(Arc::clone(&self.factory.console))))
    }

    fn anonymous_bytes(&self) -> io::Result<u64> {
        self.factory.measured.fetch_add(1, Ordering::SeqCst);
        Ok(20 << 20)
    }
}

/// What a machine has written and nobody has read.
struct Written(Arc<watch::Sender<Vec<u8>>>);

impl ConsoleReader for Written {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        self.0.send_if_modified(|written| {
            read = std::mem::take(written);
            false
        });
        Ok(read)
    }

    fn growth(&self) -> io::Result<BoxFuture<'static, ()>> {
        let mut written = self.0.subscribe();
        let grown = async move { drop(written.wait_for(|written| !written.is_empty()).await) };
        Ok(Box::pin(grown))
    }
}
