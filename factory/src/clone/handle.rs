//! The handle to a clone.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clock::WallNs;
use crate::guest::{
    Agent, BindError, Binding, ExecError, ExecOutcome, ExecRequest, ExecStream, FileError,
    FileReader, FileWriter, GuestError, Identity, IdentityOrder, StreamRequest,
};
use crate::template::Generation;
use crate::vm::{LeaseRecord, LiveVm, RecordedState, VmEnd, VmRecord};
use crate::{Phases, VmId};

/// How long a new channel to the agent may take to be made.
const RECONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Why something is refused that the interface has already.
const NOT_YET: &str = "this version cannot do it yet";
/// Commands that run in one guest at once; the agent takes 64, and more wait here for their turn.
const COMMANDS_AT_ONCE: usize = 60;

/// A live clone. It ends with its last handle.
pub struct Vm {
    live: LiveVm,
    generation: Arc<Generation>,
    phases: Phases,
    created_at: Timestamp,
    agent: tokio::sync::Mutex<Agent>,
    turns: Semaphore,
    /// Changed in one assignment each: a reader sees the old value or the new one.
    identity: Mutex<Identity>,
    paused_at: Mutex<Option<WallNs>>,
    /// Whether the agent was never spoken to: an adopted guest may be paused, so it is dialled when it is needed.
    is_unheard: AtomicBool,
}

impl Vm {
    pub(super) fn new(
        live: LiveVm,
        generation: Arc<Generation>,
        agent: Agent,
        identity: Identity,
        phases: Phases,
    ) -> Self {
        Self {
            live,
            generation,
            phases,
            created_at: Timestamp::now(),
            agent: tokio::sync::Mutex::new(agent),
            turns: Semaphore::new(COMMANDS_AT_ONCE),
            identity: Mutex::new(identity),
            paused_at: Mutex::new(None),
            is_unheard: AtomicBool::new(false),
        }
    }

    /// Takes over a machine that an earlier service has made, as its record describes it.
    pub(super) fn adopted(live: LiveVm, generation: Arc<Generation>, record: &VmRecord) -> Self {
        let agent = Agent::unheard(generation.manifest().agent);
        let identity = record.identity.clone().unwrap_or_default();
        let phases = record.phases.unwrap_or_default();
        let mut vm = Self::new(live, generation, agent, identity, phases);
        vm.created_at = record.created_at;
        vm.paused_at = Mutex::new(record.paused_at);
        vm.is_unheard = AtomicBool::new(true);
        vm
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &VmId {
        &self.live.id
    }

    /// The hypervisor's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.live.stamp.pid
    }

    /// What it was made from.
    #[must_use]
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Where the time of its start went.
    #[must_use]
    pub fn phases(&self) -> Phases {
        self.phases
    }

    /// When it was ready.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// The Unix socket of its serial console.
    #[must_use]
    pub fn console_socket(&self) -> PathBuf {
        self.live.dir().join("console.sock")
    }

    /// The Unix socket of the port that belongs to the sandbox's user, `vmint.runtime.0` in the guest.
    #[must_use]
    pub fn runtime_socket(&self) -> PathBuf {
        self.live.dir().join("runtime.sock")
    }

    /// The newest part of what its console said.
    ///
    /// # Errors
    /// When the machine has ended and its files are gone.
    pub fn console(&self) -> io::Result<Vec<u8>> {
        self.live.console.read()
    }

    /// Private memory of its process, bytes: `Anonymous` in `/proc/<pid>/smaps_rollup`. It blocks for a millisecond.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn anonymous_bytes(&self) -> io::Result<u64> {
        crate::process::anonymous_bytes(self.pid())
    }

    /// Whether its process has ended. A system call, a microsecond: for the moment before it is handed out.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.live.has_exited()
    }

    /// Waits until its process is gone.
    ///
    /// # Cancel safety
    /// Safe; any number of callers.
    pub async fn ended(&self) -> VmEnd {
        self.live.ended().await
    }

    /// Ends it: returns when its process and its directory are gone. Any number of callers.
    ///
    /// # Cancel safety
    /// A dropped call leaves the machine ending.
    pub async fn end(&self) -> VmEnd {
        self.live.end().await
    }

    /// Whether the guest still answers. A paused guest cannot: its process being there is all that is asked then.
    ///
    /// # Errors
    /// When it does not answer in time, or the machine has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ping(&self, deadline: Duration) -> Result<(), GuestError> {
        if self
            .paused_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
        {
            return Ok(());
        }
        let agent = self.agent().await;
        self.live.unless_ended(agent.ping(deadline)).await
    }

    /// Runs a command in the guest. Several may run at once; beyond some sixty they take turns, and the time of each
    /// begins with its turn.
    ///
    /// # Errors
    /// See [`ExecError`].
    ///
    /// # Cancel safety
    /// A dropped call leaves the command running until its own deadline.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecOutcome, ExecError> {
        // Closed it never is: the permit is an error only in a type.
        let _turn = self
            .live
            .unless_ended(async { Ok::<_, GuestError>(self.turns.acquire().await) })
            .await?;
        let agent = self.agent().await;
        match self.live.unless_ended(agent.exec(&request)).await {
            Err(ExecError::Guest(error @ (GuestError::Closed | GuestError::Channel { .. }))) => {
                // The channel is dead, which says nothing about the command: it may have run. So it is not tried
                // again, but the next one finds a channel that works, if the guest still answers.
                self.reconnect()
                    .await
                    .map_or(Err(error.into()), |ended| Err(ended.into()))
            }
            outcome => outcome,
        }
    }

    async fn agent(&self) -> Agent {
        let mut agent = self.agent.lock().await;
        if self.is_unheard.load(Ordering::Relaxed) {
            self.renew(&mut agent).await;
        }
        agent.clone()
    }

    /// Makes a new channel. Answers the machine's end when that is why the old one is dead.
    async fn reconnect(&self) -> Option<GuestError> {
        let mut agent = self.agent.lock().await;
        self.renew(&mut agent).await
    }

    async fn renew(&self, agent: &mut Agent) -> Option<GuestError> {
        match self
            .live
            .agent(agent.kind(), Instant::now() + RECONNECT_DEADLINE)
            .await
        {
            Ok(fresh) => {
                *agent = fresh;
                self.is_unheard.store(false, Ordering::Relaxed);
                None
            }
            Err(ended @ GuestError::Ended { .. }) => Some(ended),
            Err(error) => {
                tracing::warn!(vm = %self.id(), %error, "the guest agent cannot be reached again");
                None
            }
        }
    }

    /// Binds it to whoever has it now: a host name, an environment, small files. One round trip.
    ///
    /// # Errors
    /// See [`BindError`]. Part of it may have been done.
    ///
    /// # Cancel safety
    /// A dropped call may leave any part of it done.
    pub async fn bind(&self, binding: &Binding) -> Result<(), BindError> {
        if !binding.env.is_empty() || !binding.files.is_empty() {
            return Err(BindError::Unsupported {
                what: "binding an environment or files",
                reason: NOT_YET.to_owned(),
            });
        }
        let Some(hostname) = &binding.hostname else {
            return Ok(());
        };
        let identity = Identity {
            hostname: hostname.clone(),
            machine_id: self.identity().machine_id,
        };
        let order = IdentityOrder {
            identity: Some(identity.clone()),
            ..IdentityOrder::default()
        };
        let agent = self.agent().await;
        self.live.unless_ended(agent.identify(&order)).await?;
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// Runs a command with its streams open.
    ///
    /// # Errors
    /// See [`ExecError`]; what goes wrong later is the stream's end.
    ///
    /// # Cancel safety
    /// A dropped call, or stream, kills the command.
    #[allow(clippy::unused_async)]
    pub async fn exec_stream(&self, _: StreamRequest) -> Result<ExecStream, ExecError> {
        Err(ExecError::Unsupported {
            what: "a streaming command",
            reason: NOT_YET.to_owned(),
        })
    }

    /// Opens a file of the guest to read it.
    ///
    /// # Errors
    /// See [`FileError`].
    ///
    /// # Cancel safety
    /// Safe; a dropped reader closes the file.
    #[allow(clippy::unused_async)]
    pub async fn read_file(&self, _: &str) -> Result<FileReader, FileError> {
        Err(FileError::Unsupported {
            what: "reading a file",
            reason: NOT_YET.to_owned(),
        })
    }

    /// Begins to write a file of the guest, with these permission bits. Missing folders are made.
    ///
    /// # Errors
    /// See [`FileError`].
    ///
    /// # Cancel safety
    /// A dropped call or writer leaves no file.
    #[allow(clippy::unused_async)]
    pub async fn write_file(&self, _: &str, _: u32) -> Result<FileWriter, FileError> {
        Err(FileError::Unsupported {
            what: "writing a file",
            reason: NOT_YET.to_owned(),
        })
    }

    /// Stops its virtual CPUs.
    ///
    /// # Errors
    /// When the hypervisor does not.
    pub async fn pause(&self) -> Result<(), GuestError> {
        let asked = (WallNs::now(), Instant::now());
        self.monitor_does("pause", self.live.monitor.pause())
            .await?;
        let paused_at = asked.0.plus(asked.1.elapsed() / 2);
        *self
            .paused_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(paused_at);
        self.record_pause(Some(paused_at))
    }

    /// Lets its virtual CPUs run again and sets its clock; nothing happens when it is running.
    ///
    /// # Errors
    /// When the hypervisor does not, or the guest does not set its clock.
    ///
    /// # Cancel safety
    /// A dropped call may leave a guest that runs with a clock that is behind: end it.
    pub async fn resume(&self) -> Result<(), GuestError> {
        let Some(paused_at) = *self
            .paused_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        else {
            return Ok(());
        };
        let asked = (WallNs::now(), Instant::now());
        self.monitor_does("resume", self.live.monitor.resume())
            .await?;
        let resumed_at = asked.0.plus(asked.1.elapsed() / 2);
        *self
            .paused_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        let order = IdentityOrder {
            clock_step_ns: resumed_at.since(paused_at),
            ..IdentityOrder::default()
        };
        let agent = self.agent().await;
        self.live
            .unless_ended(agent.identify(&order))
            .await
            .map(drop)?;
        // Only now: a record that says paused, of a guest that runs, says that its clock may be behind.
        self.record_pause(None)
    }

    fn record_pause(&self, paused_at: Option<WallNs>) -> Result<(), GuestError> {
        let recorded = self
            .live
            .update_record(|record| record.paused_at = paused_at);
        recorded.map_err(|e| GuestError::Monitor {
            action: "pause or resume",
            reason: format!("its record cannot be written: {e}"),
        })
    }

    /// Leaves it running without an owner, for the service that comes next: [`crate::Factory::adopt`] takes it up
    /// there. It ends as usual when it is ending already.
    ///
    /// # Cancel safety
    /// A dropped call leaves it to be left.
    pub async fn leave(&self) -> VmEnd {
        self.live.leave().await
    }

    async fn monitor_does(
        &self,
        action: &'static str,
        doing: impl Future<Output = Result<(), crate::driver::MonitorError>>,
    ) -> Result<(), GuestError> {
        let doing = async {
            doing.await.map_err(|e| GuestError::Monitor {
                action,
                reason: e.to_string(),
            })
        };
        self.live.unless_ended(doing).await
    }

    /// Writes its state and lease to `vm.json`, for the service that comes after this one.
    ///
    /// # Errors
    /// When the machine has ended and its directory is gone, or the file system is full.
    pub fn record(&self, state: RecordedState, lease: Option<LeaseRecord>) -> io::Result<()> {
        let identity = self.identity();
        self.live.update_record(|record| {
            record.state = state;
            record.lease = lease;
            record.identity = Some(identity);
        })
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm")
            .field("id", self.id())
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}
