//! A running machine: how it is started, and the handle to it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::console::Console;
use super::dir::{AGENT, VmDir};
use super::lost::RecordKeeper;
use super::owner::{Owner, OwnerRequest, VmEnd};
use super::record::{RecordedState, Role, VmRecord};
use super::record_file::RecordFile;
use super::upkeep::Upkeep;
use crate::aside::aside;
use crate::clock::Moment;
use crate::device::Attached;
use crate::driver::{Boot, Driver, LaunchError, LaunchOrder, Machine, MachineEnds, Monitor};
use crate::guest::{Agent, GuestError};
use crate::host::{Place, Vsock};
use crate::process::{ExitWatch, OwnedProcess, ProcessStamp, ProcessState, boot_id, program_of};
use crate::supervise::supervise;
use crate::sync::lock;
use crate::{Accel, Confinement, GenerationId, MachineType, VmId};

/// What is to be started.
#[derive(Debug)]
pub(crate) struct StartPlan {
    pub(crate) id: VmId,
    pub(crate) role: Role,
    pub(crate) template: String,
    pub(crate) generation: Option<GenerationId>,
    pub(crate) machine: MachineType,
    pub(crate) accel: Accel,
    pub(crate) cpu: String,
    pub(crate) vcpus: u32,
    pub(crate) max_vcpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) max_memory_mib: u64,
    pub(crate) memory: PathBuf,
    pub(crate) vsock: Option<Vsock>,
    pub(crate) boot: Boot,
    /// Whether others that want a processor go first.
    pub(crate) gives_way: bool,
    pub(crate) state: OwnedFd,
    pub(crate) console_max_bytes: u64,
}

/// Why a machine was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its directory, sockets or record cannot be made.
    #[error("cannot make the directory of the virtual machine in {}: {source}", .run_dir.display())]
    Directory {
        /// The run directory.
        run_dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The hypervisor did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// The handle to a running machine. The machine ends with the last one.
#[derive(Clone)]
pub(crate) struct LiveVm {
    pub(crate) id: VmId,
    pub(crate) monitor: Arc<dyn Monitor>,
    pub(crate) console: Console,
    pub(crate) stamp: ProcessStamp,
    pub(crate) vsock_cid: Option<u32>,
    pub(crate) confinement: Arc<[Confinement]>,
    watch: Arc<ExitWatch>,
    /// From the order to the process, directory and sockets included.
    pub(crate) spawn: Duration,
    pub(crate) qmp: Duration,
    dir: PathBuf,
    record: Arc<Mutex<RecordFile>>,
    requests: mpsc::Sender<OwnerRequest>,
    has_disks: Arc<AtomicBool>,
    ended: watch::Receiver<Option<VmEnd>>,
}

impl LiveVm {
    /// Starts a machine.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing: the process is killed and the directory removed.
    pub(crate) async fn start(
        driver: &dyn Driver,
        run_dir: &Arc<Place>,
        plan: StartPlan,
    ) -> Result<Self, StartError> {
        let begun = Instant::now();
        let directory = |source| StartError::Directory {
            run_dir: run_dir.path().to_owned(),
            source,
        };
        let (place, id, max_bytes) = (Arc::clone(run_dir), plan.id.clone(), plan.console_max_bytes);
        let made = aside(move || {
            let (dir, ends) = VmDir::create(place.path(), &id)?;
            let console = Console::open(&dir.console_log(), max_bytes)?;
            Ok((dir, ends, console))
        });
        let (dir, ends, console) = made.await.map_err(directory)?;
        let record = draft_record(&plan);
        let order = LaunchOrder {
            id: plan.id,
            machine: plan.machine,
            accel: plan.accel,
            cpu: plan.cpu,
            vcpus: plan.vcpus,
            max_vcpus: plan.max_vcpus,
            memory_mib: plan.memory_mib,
            max_memory_mib: plan.max_memory_mib,
            memory: plan.memory,
            vsock: plan.vsock,
            monitor_path: dir.monitor(),
            boot: plan.boot,
            gives_way: plan.gives_way,
            ends: MachineEnds {
                monitor: ends.monitor,
                agent: ends.agent,
                runtime: ends.runtime,
                console: ends.console,
                console_log: ends.console_log,
                state: plan.state,
            },
        };
        let paper = begun.elapsed();
        let machine = driver.launch(order).await?;
        let (spawn, qmp) = (machine.spawn, machine.qmp);
        let (place, files) = (Arc::clone(run_dir), (dir, console));
        let recorded = aside(move || Parts::recorded(machine, files, record, place)).await;
        let live = Self::own(recorded.map_err(directory)?);
        Ok(Self {
            spawn: paper + spawn,
            qmp,
            ..live
        })
    }

    /// Starts the owner of a machine that runs, and makes the first handle to it.
    pub(super) fn own(parts: Parts) -> Self {
        let Parts {
            process,
            watch,
            monitor,
            dir,
            console,
            record,
        } = parts;
        let about = record.record();
        let (id, stamp, vsock_cid) = (about.id.clone(), about.process, about.vsock_cid);
        let confinement = about.confinement.clone().into();
        // The task of whoever made the machine ends long before it: the owner's lines are about the machine alone.
        let span =
            tracing::error_span!(parent: None, "vm", sandbox = %id, template = about.template);
        let has_disks = Arc::new(AtomicBool::new(!about.devices.disks.is_empty()));
        let (requests, inbox) = mpsc::channel(1);
        let (ended_sender, ended) = watch::channel(None);
        let path = dir.path().to_owned();
        let record = Arc::new(Mutex::new(record));
        let keeper = RecordKeeper::new(Arc::clone(&record));
        let (upkeep, lost) = Upkeep::of(console.clone(), keeper.clone());
        let owner = Owner {
            watch: Arc::clone(&watch),
            has_disks: Arc::clone(&has_disks),
            record: keeper,
            process,
            monitor: Arc::clone(&monitor),
            upkeep,
            lost,
            dir,
            console: console.clone(),
            requests: inbox,
            ended: ended_sender,
        };
        tokio::spawn(supervise("VM owner", owner.run()).instrument(span));
        Self {
            id,
            monitor,
            console,
            stamp,
            vsock_cid,
            confinement,
            watch,
            spawn: Duration::ZERO,
            qmp: Duration::ZERO,
            dir: path,
            record,
            requests,
            has_disks,
            ended,
        }
    }

    /// It is about to get a disk: from now on it is given the time to write what it still holds before it is killed.
    pub(crate) fn gets_disks(&self) {
        self.has_disks.store(true, Ordering::Relaxed);
    }

    /// Changes the machine's record, in memory and on disk.
    pub(crate) fn update_record(&self, change: impl FnOnce(&mut VmRecord)) -> io::Result<()> {
        // A change is a few assignments: it cannot leave a record half changed.
        lock(&self.record).update(change)
    }

    /// Leaves the machine running, for a service that comes later: returns when nobody owns it any more. One that is
    /// ending already ends.
    ///
    /// # Cancel safety
    /// A dropped call leaves it to the owner, who does as it was told.
    pub(crate) async fn leave(&self) -> VmEnd {
        drop(self.requests.send(OwnerRequest::Leave).await);
        self.ended().await
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits for the guest's agent. A machine that ends meanwhile is noticed at once.
    pub(crate) async fn agent(&self, deadline: Instant) -> Result<Agent, GuestError> {
        let socket = self.dir.join(AGENT);
        let losses = self.monitor.agent_losses();
        let connecting = Agent::connect(&socket, &losses, deadline);
        match self.unless_ended(connecting).await {
            Err(error) => Err(self.or_ended(error).await),
            outcome => outcome,
        }
    }

    /// Why the guest failed: the machine's end, when that is why its channels are closed.
    pub(crate) async fn or_ended(&self, error: GuestError) -> GuestError {
        /// A process that was killed closes its sockets a moment before it is reaped.
        const REAPED_SOON: Duration = Duration::from_millis(500);
        if !matches!(error, GuestError::Closed | GuestError::Channel { .. }) {
            return error;
        }
        let end = tokio::time::timeout(REAPED_SOON, self.ended()).await;
        end.map_or(error, |end| GuestError::Ended { reason: end.how })
    }

    /// Does something with the guest, and stops when the machine ends.
    pub(crate) async fn unless_ended<T, E: From<GuestError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            // A finished answer counts, even when the machine has ended since.
            biased;
            outcome = work => outcome,
            end = self.ended() => Err(E::from(GuestError::Ended { reason: end.how })),
        }
    }

    /// What the process does: its end is known before anybody was told.
    pub(crate) fn process(&self) -> ProcessState {
        self.watch.state()
    }

    /// Waits until the process is gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&self) -> VmEnd {
        let mut ended = self.ended.clone();
        let lost = || VmEnd {
            asked: false,
            how: "its owner is gone".to_owned(),
            console: String::new(),
        };
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or_else(lost),
            Err(_) => lost(),
        }
    }

    /// The last lines on its console, for a message, whether it still runs or not.
    pub(crate) fn last_console_lines(&self) -> String {
        let end = self.ended.borrow();
        end.as_ref()
            .map_or_else(|| self.console.last_lines(), |end| end.console.clone())
    }

    /// Ends the machine: returns when its process and its directory are gone. Any number of callers.
    ///
    /// # Cancel safety
    /// A dropped call leaves the machine ending.
    pub(crate) async fn end(&self) -> VmEnd {
        // A full queue or a closed one says that it is ending already.
        drop(self.requests.try_send(OwnerRequest::End));
        self.ended().await
    }
}

/// What a running machine consists of, before it has an owner.
pub(super) struct Parts {
    // In this order they are dropped: the process is gone before its directory is.
    pub(super) process: OwnedProcess,
    pub(super) watch: Arc<ExitWatch>,
    pub(super) monitor: Arc<dyn Monitor>,
    pub(super) dir: VmDir,
    pub(super) console: Console,
    pub(super) record: RecordFile,
}

impl Parts {
    /// Writes the first record of a machine. It blocks.
    fn recorded(
        machine: Machine,
        (dir, console): (VmDir, Console),
        record: impl FnOnce(ProcessStamp, PathBuf) -> VmRecord,
        run_dir: Arc<Place>,
    ) -> io::Result<Self> {
        let Machine {
            child,
            monitor,
            confinement,
            may_connect,
            ..
        } = machine;
        let record = VmRecord {
            confinement: confinement.to_vec(),
            may_connect,
            ..record(child.stamp(), program_of(child.stamp().pid)?)
        };
        let record = RecordFile::create(dir.path(), record)?;
        Ok(Self {
            watch: child.watch(),
            process: OwnedProcess::Child(Box::new(child)),
            monitor: Arc::from(monitor),
            dir,
            console,
            record: record.within(run_dir),
        })
    }
}

/// The record of a machine, but for its process.
fn draft_record(plan: &StartPlan) -> impl FnOnce(ProcessStamp, PathBuf) -> VmRecord + use<> {
    let (id, template, generation) = (
        plan.id.clone(),
        plan.template.clone(),
        plan.generation.clone(),
    );
    let (role, accel) = (plan.role, plan.accel);
    let (vcpus, memory_mib) = (plan.vcpus, plan.memory_mib);
    let console_max_bytes = plan.console_max_bytes;
    let vsock_cid = plan.vsock.as_ref().map(|vsock| vsock.cid);
    move |process, program| VmRecord {
        format: VmRecord::FORMAT,
        id,
        role,
        template,
        generation,
        process,
        boot_id: boot_id().to_owned(),
        program,
        accel,
        vcpus,
        memory_mib,
        console_max_bytes,
        created_at: Timestamp::now(),
        state: RecordedState::Launching,
        paused_at: None,
        clock_set_at: None,
        protocol: None,
        protocol_oldest: None,
        phases: None,
        identity: None,
        digest: None,
        vsock_cid,
        confinement: Vec::new(),
        may_connect: false,
        lease: None,
        on_clone: Vec::new(),
        devices: Attached::default(),
        disk_keys: Vec::new(),
        written: Moment::now(),
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
