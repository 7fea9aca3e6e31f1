//! The handle to a clone.

use std::io;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::time::Instant;

use super::facts::{AgentState, CloneFacts};
use super::talk::Talk;
use crate::clock::{Moment, WallNs};
use crate::device::{AttachError, Attached, OpenDevices, attach};
use crate::guest::{Agent, GuestError, Identity, IdentityDigest, IdentityOrder};
pub(super) use crate::sync::lock;
use crate::template::Generation;
use crate::vm::{
    CONSOLE, ConsoleFollower, LeaseRecord, LiveVm, RUNTIME, RecordedState, VmEnd, VmRecord,
};
use crate::{Phases, ProcessState, Size, VmId};

/// A live clone. It ends with its last handle.
pub struct Vm {
    pub(super) live: LiveVm,
    generation: Arc<Generation>,
    phases: Phases,
    created_at: Timestamp,
    pub(super) talk: Talk,
    /// What it said of itself when it was made.
    digest: IdentityDigest,
    /// What it has by now. Held while it grows.
    pub(super) size: tokio::sync::Mutex<Size>,
    pub(super) identity: Mutex<Identity>,
    paused_at: Mutex<Option<WallNs>>,
    /// When its guest's clock was set by the host's.
    pub(super) clock_set_at: Mutex<Moment>,
}

impl Vm {
    pub(super) fn new(
        live: LiveVm,
        generation: Arc<Generation>,
        agent: Agent,
        (identity, digest): (Identity, IdentityDigest),
        (created_at, phases): (Timestamp, Phases),
        clock_set_at: Moment,
    ) -> Self {
        Self {
            live,
            size: tokio::sync::Mutex::new(generation.sizes().least),
            generation,
            phases,
            created_at,
            talk: Talk::new(agent),
            digest,
            identity: Mutex::new(identity),
            paused_at: Mutex::new(None),
            clock_set_at: Mutex::new(clock_set_at),
        }
    }

    /// Takes over a machine that an earlier service has made, as its record describes it. Its agent is dialled when it
    /// is needed: the guest may be paused.
    pub(super) fn adopted(live: LiveVm, generation: Arc<Generation>, record: &VmRecord) -> Self {
        let agent = Agent::unheard();
        let identity = record.identity.clone().unwrap_or_default();
        // Without a digest, as only a sandbox may be, it has no marks that could be compared with others'.
        let digest = record.digest.clone().unwrap_or_default();
        let phases = record.phases.unwrap_or_default();
        let started = (record.created_at, phases);
        // The record of an earlier version tells only when it was written last.
        let clock_set_at = record.clock_set_at.unwrap_or(record.written);
        let said = (identity, digest);
        let mut vm = Self::new(live, generation, agent, said, started, clock_set_at);
        if let Some(lease) = &record.lease {
            vm.size = tokio::sync::Mutex::new(lease.size);
        }
        vm.paused_at = Mutex::new(record.paused_at);
        vm.talk.is_outdated = record.is_outdated();
        vm
    }

    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> CloneFacts {
        CloneFacts {
            id: self.id().clone(),
            pid: self.pid(),
            created_at: self.created_at,
            phases: self.phases,
            digest: self.digest.clone(),
            console_socket: self.live.dir().join(CONSOLE),
            vsock_cid: self.live.vsock_cid,
            confinement: Arc::clone(&self.live.confinement),
            runtime_socket: self.live.dir().join(RUNTIME),
            agent: if self.talk.is_outdated {
                AgentState::Outdated
            } else {
                AgentState::Current
            },
        }
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
        lock(&self.identity).clone()
    }

    /// Where the time of its start went.
    #[must_use]
    pub fn phases(&self) -> Phases {
        self.phases
    }

    /// The newest part of what its console said.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn console(&self) -> io::Result<Vec<u8>> {
        self.live.console.read()
    }

    /// Follows its console, from the oldest byte that is kept.
    #[must_use]
    pub fn follow_console(&self) -> ConsoleFollower {
        self.live.console.follow()
    }

    /// Private memory of its process, bytes: `Anonymous` in `/proc/<pid>/smaps_rollup`. It blocks for a millisecond.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn anonymous_bytes(&self) -> io::Result<u64> {
        crate::process::anonymous_bytes(self.pid())
    }

    /// What its process does. A system call, some microseconds: for the moment before it is handed out.
    #[must_use]
    pub fn process(&self) -> ProcessState {
        self.live.process()
    }

    /// Whether its process has ended.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.process() == ProcessState::Ended
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

    /// Whether its virtual CPUs stand still.
    pub(super) fn is_paused(&self) -> bool {
        lock(&self.paused_at).is_some()
    }

    /// Plugs devices into it, and waits until the guest has drivers for them.
    ///
    /// # Errors
    /// See [`AttachError`]. Part of them may be there: end it.
    ///
    /// # Cancel safety
    /// A dropped call may leave part of them: end it.
    pub async fn attach(&self, devices: &OpenDevices) -> Result<Attached, AttachError> {
        if !devices.disks.is_empty() {
            self.live.gets_disks();
        }
        let agent = self.agent("plugging devices").await?;
        let plugging = attach(self.id(), &*self.live.monitor, &agent, devices);
        let attached = self.live.unless_ended(plugging).await?;
        let recorded = self.live.update_record(|record| {
            record.devices.clone_from(&attached);
            record.disk_keys = devices.disks.iter().map(|disk| disk.key).collect();
        });
        recorded.map_err(|source| AttachError::Record { source })?;
        Ok(attached)
    }

    /// Gives its console's and its runtime's sockets to a user of the host: theirs alone, mode 0600. Returns whether
    /// they changed hands. They do not where they are that user's already, or where the service is no root: a plain user
    /// can give nothing away, so the sockets stay the service's own.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn give_sockets(&self, uid: u32, gid: u32) -> io::Result<bool> {
        crate::vm::give_sockets(
            self.live.dir(),
            &[CONSOLE, RUNTIME].map(|socket| self.live.dir().join(socket)),
            (uid, gid),
        )
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
        *lock(&self.paused_at) = Some(paused_at);
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
        let Some(paused_at) = *lock(&self.paused_at) else {
            return Ok(());
        };
        let (asked, since) = (Moment::now(), Instant::now());
        self.monitor_does("resume", self.live.monitor.resume())
            .await?;
        let resumed_at = asked.plus(since.elapsed() / 2);
        *lock(&self.paused_at) = None;
        let order = IdentityOrder {
            clock_step_ns: resumed_at.wall.since(paused_at),
            ..IdentityOrder::default()
        };
        let agent = self.agent("setting the guest's clock").await?;
        self.live
            .unless_ended(agent.identify(&order))
            .await
            .map(drop)?;
        *lock(&self.clock_set_at) = resumed_at;
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
        self.generation.is_left();
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
