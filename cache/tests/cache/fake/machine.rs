//! Machines without processes.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::Instant;
use vmint_cache::{
    AgentState, AttachError, Attached, BindError, Binding, BoxError, CloneFacts, CloneOrder,
    ConsoleReader, ExecError, ExecOutcome, ExecRequest, ExecStream, FileError, FileReader,
    FileWriter, GrowError, Guest, GuestError, Identity, IdentityDigest, LiveClone, PartialOutput,
    Process, ProcessError, ProcessOrder, RecordState, Size, SocketOwner, StreamRequest,
    WriteOptions,
};
use vmint_factory::{DiskKey, GenerationId, OpenDevices, Phases, ProcessState, VmId};

use super::console::Written;
use super::disk::Disk;
use super::processes::Processes;
use super::script::{Attach, Script};

use crate::time::takes;

mod guest;

/// A user that no socket can be given to.
pub(crate) const NOBODY: u32 = 65_534;

/// How long a dead channel is dialled.
const RECONNECT: Duration = Duration::from_secs(10);

/// What a machine has for itself, unless a test says otherwise.
const PRIVATE_BYTES: u64 = 32 << 20;

/// One machine.
pub(crate) struct Clone {
    pub id: VmId,
    pub generation: GenerationId,
    pub attached: Mutex<Attached>,
    pub disk_keys: Mutex<Vec<DiskKey>>,
    pub order: CloneOrder,
    pub hostname: Mutex<String>,
    pub records: Mutex<Vec<RecordState>>,
    pub resumed: AtomicUsize,
    pub console: Arc<watch::Sender<Vec<u8>>>,
    /// How often its console was looked at.
    pub looks: Arc<AtomicU64>,
    pub digest: IdentityDigest,
    pub owner: Mutex<Option<SocketOwner>>,
    pub bound: Mutex<Vec<Binding>>,
    ends: bool,
    pub grown: Mutex<Option<Size>>,
    refuses_hostnames: bool,
    dies_resumed: bool,
    refuses_to_grow: bool,
    attach: Attach,
    answers: AtomicBool,
    is_stopped: AtomicBool,
    ignores_deadlines: AtomicBool,
    pub heard: Mutex<Option<Instant>>,
    /// Questions to its guest, and looks at its process.
    pub pings: AtomicUsize,
    pub process_looks: AtomicUsize,
    /// Times that its memory was measured, and that its facts were asked for.
    pub measured: AtomicUsize,
    pub facts_asked: AtomicUsize,
    /// Where its record is written.
    pub disk: Disk,
    /// The host's clock was set, and the guest's was not.
    pub clock_is_off: AtomicBool,
    /// Its agent is of a version that cannot be talked to.
    pub is_outdated: AtomicBool,
    pub processes: Processes,
    is_full: AtomicBool,
    private_bytes: AtomicU64,
    end: watch::Sender<Option<String>>,
}

impl Clone {
    pub(super) fn new(generation: GenerationId, order: CloneOrder, script: &mut Script) -> Self {
        Self {
            id: order.id.clone(),
            generation,
            attached: Mutex::default(),
            disk_keys: Mutex::default(),
            digest: script.next_digest(&order.id),
            hostname: Mutex::new(order.hostname.clone()),
            records: Mutex::default(),
            resumed: AtomicUsize::new(0),
            console: Arc::default(),
            looks: Arc::default(),
            owner: Mutex::default(),
            bound: Mutex::default(),
            ends: script.ends,
            grown: Mutex::default(),
            refuses_hostnames: script.next_refuses_hostnames(),
            dies_resumed: script.next_dies_resumed(),
            refuses_to_grow: script.next_refuses_to_grow(),
            attach: script.next_attach(),
            answers: AtomicBool::new(true),
            is_stopped: AtomicBool::new(false),
            heard: Mutex::new(Some(Instant::now())),
            pings: AtomicUsize::new(0),
            process_looks: AtomicUsize::new(0),
            measured: AtomicUsize::new(0),
            facts_asked: AtomicUsize::new(0),
            disk: Disk::default(),
            clock_is_off: AtomicBool::new(false),
            is_outdated: AtomicBool::new(false),
            processes: Processes::default(),
            ignores_deadlines: AtomicBool::new(false),
            is_full: AtomicBool::new(script.is_run_dir_full),
            private_bytes: AtomicU64::new(PRIVATE_BYTES),
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

    /// Its private pages are so many bytes from now on.
    pub(crate) fn uses(&self, bytes: u64) {
        self.private_bytes.store(bytes, Ordering::SeqCst);
    }

    pub(crate) fn falls_silent(&self) {
        self.answers.store(false, Ordering::SeqCst);
    }

    /// The channel to its agent is dead: it is dialled again first, whatever the deadline of a question.
    pub(crate) fn loses_its_channel(&self) {
        self.ignores_deadlines.store(true, Ordering::SeqCst);
        self.falls_silent();
    }

    pub(crate) fn speaks_again(&self) {
        self.answers.store(true, Ordering::SeqCst);
    }

    /// A signal stops its process.
    pub(crate) fn stops(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    /// Its guest says something.
    pub(crate) fn is_heard(&self) {
        *self.heard.lock().unwrap() = Some(Instant::now());
    }

    fn is_mute(&self) -> bool {
        let answers = self.answers.load(Ordering::SeqCst);
        !answers || self.is_stopped.load(Ordering::SeqCst)
    }

    /// Its directory takes nothing more.
    pub(crate) fn is_out_of_room(&self) {
        self.is_full.store(true, Ordering::SeqCst);
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

/// The handle to a machine, which ends with it, unless it was left or its service has crashed.
pub(super) struct Handle(Arc<Clone>, Hold);

/// What a handle has of its machine.
struct Hold {
    era: Arc<AtomicUsize>,
    begun: usize,
    left: watch::Sender<bool>,
}

impl Handle {
    pub(super) fn new(clone: Arc<Clone>, era: &Arc<AtomicUsize>) -> Self {
        let hold = Hold {
            era: Arc::clone(era),
            begun: era.load(Ordering::SeqCst),
            left: watch::Sender::new(false),
        };
        Self(clone, hold)
    }

    fn is_held(&self) -> bool {
        self.1.era.load(Ordering::SeqCst) == self.1.begun && !*self.1.left.borrow()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_held() {
            self.0.dies("its last handle was dropped");
        }
    }
}

impl LiveClone for Handle {
    fn facts(&self) -> CloneFacts {
        self.0.facts_asked.fetch_add(1, Ordering::SeqCst);
        CloneFacts {
            id: self.0.id.clone(),
            pid: 1,
            created_at: Timestamp::now(),
            phases: Phases::default(),
            digest: self.0.digest.clone(),
            console_socket: PathBuf::from("/run/vmint/console"),
            vsock_cid: None,
            confinement: Arc::default(),
            runtime_socket: PathBuf::from("/run/vmint/runtime"),
            agent: if self.0.is_outdated.load(Ordering::SeqCst) {
                AgentState::Outdated
            } else {
                AgentState::Current
            },
        }
    }

    fn id(&self) -> &VmId {
        &self.0.id
    }

    fn identity(&self) -> Identity {
        Identity {
            hostname: self.0.hostname.lock().unwrap().clone(),
            machine_id: self.0.id.to_string(),
        }
    }

    fn process(&self) -> ProcessState {
        self.0.process_looks.fetch_add(1, Ordering::SeqCst);
        if self.0.ended().now_or_never().is_some() {
            ProcessState::Ended
        } else if self.0.is_stopped.load(Ordering::SeqCst) {
            ProcessState::Stopped
        } else {
            ProcessState::Runs
        }
    }

    fn last_heard(&self) -> Option<Instant> {
        *self.0.heard.lock().unwrap()
    }

    fn ended(&self) -> BoxFuture<'_, String> {
        async {
            let mut left = self.1.left.subscribe();
            tokio::select! {
                how = self.0.ended() => how,
                Ok(_) = left.wait_for(|left| *left) => "it was left".to_owned(),
            }
        }
        .boxed()
    }

    fn leave(&self) -> BoxFuture<'_, String> {
        self.1.left.send_replace(true);
        self.ended()
    }

    fn grow(&self, wanted: Size) -> BoxFuture<'_, Result<Size, GrowError>> {
        async move {
            yield_now().await;
            if self.0.refuses_to_grow {
                return Err(GrowError::Guest(GuestError::Closed));
            }
            *self.0.grown.lock().unwrap() = Some(wanted);
            Ok(wanted)
        }
        .boxed()
    }

    fn attach<'a>(
        &'a self,
        devices: &'a OpenDevices,
    ) -> BoxFuture<'a, Result<Attached, AttachError>> {
        async move {
            yield_now().await;
            match self.0.attach {
                Attach::Succeeds => {}
                Attach::Fails => return Err(GuestError::Closed.into()),
                Attach::IsRefused => {
                    return Err(AttachError::Refused {
                        device: "the disk /d".to_owned(),
                        reason: "no".to_owned(),
                    });
                }
                Attach::Hangs => std::future::pending().await,
            }
            let keys = devices.disks.iter().map(|disk| disk.key).collect();
            *self.0.disk_keys.lock().unwrap() = keys;
            let names = |kind, count| (0..count).map(|at| format!("{kind}{at}")).collect();
            let (nics, disks) = (devices.nics.len(), devices.disks.len());
            let attached = devices.attached(&self.0.id, names("eth", nics), names("vd", disks));
            self.0.attached.lock().unwrap().clone_from(&attached);
            Ok(attached)
        }
        .boxed()
    }

    fn give_sockets(&self, owner: SocketOwner) -> io::Result<bool> {
        if owner.uid == NOBODY {
            return Err(io::Error::other("not permitted"));
        }
        *self.0.owner.lock().unwrap() = Some(owner);
        Ok(true)
    }

    fn clock_is_off(&self) -> bool {
        self.0.clock_is_off.load(Ordering::SeqCst)
    }

    fn set_clock(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            yield_now().await;
            if !self.0.is_alive() {
                return Err("the agent is gone".into());
            }
            self.0.clock_is_off.store(false, Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            yield_now().await;
            if self.0.dies_resumed {
                self.0.dies("killed");
                return Err("the monitor is gone".into());
            }
            if self.0.is_mute() {
                std::future::pending::<()>().await;
            }
            self.0.resumed.fetch_add(1, Ordering::SeqCst);
            self.0.is_heard();
            Ok(())
        }
        .boxed()
    }

    fn record(&self, state: RecordState) -> io::Result<()> {
        if !self.is_held() {
            return Ok(());
        }
        if !self.0.is_alive() {
            return Err(io::Error::other("its directory is gone"));
        }
        if self.0.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.disk.write();
        self.0.records.lock().unwrap().push(state);
        Ok(())
    }

    fn end(&self) -> BoxFuture<'_, String> {
        async move {
            if !self.is_held() {
                return std::future::pending().await;
            }
            if self.0.ends {
                takes(Duration::from_millis(20)).await;
                self.0.dies("it was ended");
            }
            self.0.ended().await
        }
        .boxed()
    }

    fn console(&self) -> io::Result<Vec<u8>> {
        Ok(b"console".to_vec())
    }

    fn follow_console(&self) -> io::Result<Box<dyn ConsoleReader>> {
        let (console, looks) = (&self.0.console, &self.0.looks);
        Ok(Box::new(Written(Arc::clone(console), Arc::clone(looks))))
    }

    fn anonymous_bytes(&self) -> io::Result<u64> {
        self.0.measured.fetch_add(1, Ordering::SeqCst);
        Ok(self.0.private_bytes.load(Ordering::SeqCst))
    }
}
