//! What the factory needs of a hypervisor.
//!
//! A driver turns a [`LaunchOrder`] into a [`Machine`]: a process and a monitor. It says in its [`Capabilities`] what
//! it can do, and the pipelines ask there first: a driver never answers success to something that it did not do.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::device::DiskFormat;
use crate::host::Vsock;
use crate::process::{Child, ExitKind};
use crate::{Accel, Confinement, MachineType, VmId};

/// What a hypervisor can do with one kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Save the device state apart from the memory, and restore any number of clones from it.
    pub(crate) templates: bool,
    /// Map a template's memory so that the process could not write to it if it wanted to.
    pub(crate) read_only_memory: bool,
    /// Tell the guest's kernel that it is a clone, so that it reseeds its random numbers.
    pub(crate) generation_id: bool,
    /// Give virtual CPUs to a machine that runs.
    pub(crate) cpu_hotplug: bool,
    /// Give memory to a machine that runs.
    pub(crate) memory_hotplug: bool,
    /// Give a machine an address on AF_VSOCK.
    pub(crate) vsock: bool,
}

/// One hypervisor.
pub(crate) trait Driver: Send + Sync + 'static {
    /// What it can do with this machine.
    fn capabilities(&self, machine: MachineType) -> Capabilities;

    /// Dials the monitor of a machine that another service has started.
    fn attach<'a>(
        &'a self,
        monitor: &'a Path,
    ) -> BoxFuture<'a, Result<Box<dyn Monitor>, MonitorError>>;

    /// Starts a machine. When this answers, the monitor works; a clone is still without state, and paused.
    fn launch(&self, order: LaunchOrder) -> BoxFuture<'_, Result<Machine, LaunchError>>;
}

/// What the machine boots from.
#[derive(Clone, Debug)]
pub(crate) enum Boot {
    /// From its kernel, into a memory file that is shared: the only thing that ever writes to it.
    Template {
        kernel: PathBuf,
        initrd: PathBuf,
        params: String,
    },
    /// From a saved state, onto a private read-only mapping of the memory file.
    Clone { kernel_stub: PathBuf },
}

/// The ends of a machine's channels, made before the machine: nobody has to wait for a socket to appear.
#[derive(Debug)]
pub(crate) struct MachineEnds {
    /// A listening socket for the monitor.
    pub(crate) monitor: OwnedFd,
    /// A listening socket for the guest's agent.
    pub(crate) agent: OwnedFd,
    /// A listening socket for the port that belongs to the sandbox's user.
    pub(crate) runtime: OwnedFd,
    /// A listening socket for the serial console.
    pub(crate) console: OwnedFd,
    /// A file that everything on the console is appended to.
    pub(crate) console_log: OwnedFd,
    /// The device state: written by a template's save, read by a clone's load.
    pub(crate) state: OwnedFd,
}

/// A machine to start.
#[derive(Debug)]
pub(crate) struct LaunchOrder {
    pub(crate) id: VmId,
    pub(crate) machine: MachineType,
    pub(crate) accel: Accel,
    pub(crate) cpu: String,
    pub(crate) vcpus: u32,
    /// Virtual CPUs that can be plugged in later, these included.
    pub(crate) max_vcpus: u32,
    pub(crate) memory_mib: u64,
    /// Memory that can be plugged in later, this included, MiB.
    pub(crate) max_memory_mib: u64,
    pub(crate) memory: PathBuf,
    /// Its address on AF_VSOCK, where it has one.
    pub(crate) vsock: Option<Vsock>,
    pub(crate) boot: Boot,
    /// Whether others that want a processor go first.
    pub(crate) gives_way: bool,
    pub(crate) ends: MachineEnds,
    /// Where the monitor's listening socket can be dialled.
    pub(crate) monitor_path: PathBuf,
}

/// A started machine.
pub(crate) struct Machine {
    pub(crate) child: Child,
    pub(crate) monitor: Box<dyn Monitor>,
    /// What keeps the process from the rest of the host.
    pub(crate) confinement: Arc<[Confinement]>,
    /// Whether the process may open TCP connections.
    pub(crate) may_connect: bool,
    /// From the order to the process.
    pub(crate) spawn: Duration,
    /// From the process to the monitor's first answers.
    pub(crate) qmp: Duration,
}

/// The control channel of a machine.
pub(crate) trait Monitor: Send + Sync + 'static {
    /// Lets the virtual CPUs run.
    fn resume(&self) -> BoxFuture<'_, Result<(), MonitorError>>;
    /// Stops them.
    fn pause(&self) -> BoxFuture<'_, Result<(), MonitorError>>;
    /// Writes the device state of a paused machine to the descriptor in its order.
    fn save(&self, deadline: Duration) -> BoxFuture<'_, Result<(), MonitorError>>;
    /// Reads the device state of a clone from the descriptor in its order.
    fn load(&self, deadline: Duration) -> BoxFuture<'_, Result<(), MonitorError>>;
    /// How often the guest has closed the agent's port: each time, the agent that served it is gone.
    fn agent_losses(&self) -> watch::Receiver<u64>;
    /// Plugs a device into one of the slots that the machine has. What of it is there after a failure is not told.
    fn plug_device(&self, slot: usize, plug: Plug) -> BoxFuture<'_, Result<(), MonitorError>>;
    /// Plugs this many more virtual CPUs into a machine that runs. Its guest still has to bring them online.
    fn plug_vcpus(&self, count: u32) -> BoxFuture<'_, Result<(), MonitorError>>;
    /// Plugs one module of memory into a machine that runs. Its guest still has to bring it online.
    fn plug_memory(&self, mib: u64) -> BoxFuture<'_, Result<(), MonitorError>>;
    /// Whether its virtual CPUs run.
    fn is_running(&self) -> BoxFuture<'_, Result<bool, MonitorError>>;
    /// Asks the machine to end; answers once it has understood.
    fn quit(&self) -> BoxFuture<'_, Result<(), MonitorError>>;
}

/// A device to plug.
#[derive(Debug)]
pub(crate) struct Plug {
    /// What it is, for a message.
    pub(crate) device: String,
    pub(crate) kind: PlugKind,
}

/// What kind of device.
#[derive(Debug)]
pub(crate) enum PlugKind {
    /// A network interface at a tap.
    Tap { fd: OwnedFd, mac: String },
    /// A network interface at the hypervisor's own network.
    UserNet { mac: String },
    /// A disk.
    Disk {
        fd: OwnedFd,
        is_block_device: bool,
        format: DiskFormat,
        read_only: bool,
        serial: String,
    },
}

/// Why a monitor did not do what it was told.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MonitorError {
    /// The command failed, or the monitor did.
    #[error("{command}: {source}")]
    Command {
        /// The command.
        command: &'static str,
        /// Why.
        source: crate::wire::LinkError,
    },
    /// There is no room for another virtual CPU.
    #[error("{free} more virtual CPUs can be plugged in, and {wanted} are wanted")]
    NoVcpus {
        /// How many are left.
        free: usize,
        /// How many are wanted.
        wanted: u32,
    },
    /// A save or a load was tried and failed.
    #[error("{action} failed: {reason}")]
    Migration {
        /// `saving` or `loading`.
        action: &'static str,
        /// The hypervisor's words.
        reason: String,
    },
    /// A save or a load did not end.
    #[error("{action} did not end within {}", crate::text::duration(*.after))]
    Deadline {
        /// `saving` or `loading`.
        action: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
}

/// Why a machine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The program could not be executed.
    #[error("cannot start {}: {source}", .program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended before its monitor answered.
    #[error("the hypervisor {exit}{}", said(.stderr))]
    Ended {
        /// How it ended.
        exit: String,
        /// Its last lines.
        stderr: String,
    },
    /// Its monitor does not work.
    #[error("the hypervisor's monitor does not answer: {source}{}", said(.stderr))]
    Monitor {
        /// Why.
        source: MonitorError,
        /// The hypervisor's last lines.
        stderr: String,
    },
}

impl LaunchError {
    pub(crate) fn ended(exit: ExitKind, stderr: String) -> Self {
        Self::Ended {
            exit: exit.to_string(),
            stderr,
        }
    }

    /// Whether the program could not even be executed.
    pub(crate) fn is_spawn(&self) -> bool {
        matches!(self, Self::Spawn { .. })
    }

    /// Whether the monitor, rather than the process, is what failed.
    pub(crate) fn is_monitor(&self) -> bool {
        matches!(self, Self::Monitor { .. })
    }
}

/// The last lines of a process, as the end of a message of one line.
pub(crate) fn said(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!("; it said: {}", lines.join(" / "))
    }
}
