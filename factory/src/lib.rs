//! Makes virtual machines: one *generation* of a template, and any number of copy-on-write *clones* of it.
//!
//! This crate owns everything that touches a hypervisor. It knows nothing of pools, leases, HTTP, the configuration
//! file or the metrics exporter: see `ARCHITECTURE.md` for the rules that hold between the crates.
//!
//! Start at [`Factory`]: [`Factory::open`] examines the host and takes the locks, [`Factory::build`] makes a
//! [`Generation`], [`Factory::mint`] makes a [`Vm`] from it.
//!
//! ```text
//!   factory.rs                the front: everything that another crate can ask for
//!   template/   clone/        the two pipelines
//!   vm/                       one machine: directory, record, owner, handle
//!   device/                   disks and network interfaces that a clone gets when it is handed out
//!   guest/      driver.rs     what is said to the guest; what is wanted of a hypervisor
//!   qemu/                     the one hypervisor that there is
//!   process/    wire/         processes; the monitor's JSON lines
//!   host/       memory/       the host's part; looking into files
//!   supervise.rs  sync.rs     tasks whose panic ends the process; locks
//!   rights.rs                 files and directories whose rights no umask changes
//!   sys.rs                    everything unsafe
//! ```

mod aside;
mod clock;
mod clone;
mod confinement;
mod device;
mod driver;
mod factory;
mod guard;
mod guest;
mod host;
mod id;
mod kernel;
mod memory;
mod ms;
#[cfg(test)]
#[allow(unreachable_pub)]
mod needs_root;
mod phases;
mod process;
mod qemu;
mod rights;
mod shortage;
mod size;
mod spec;
mod supervise;
mod sync;
mod sys;
mod template;
mod text;
mod vm;
#[cfg(test)]
mod waiting;
mod wire;

pub use clone::{
    Adopted, AgentState, CloneError, CloneFacts, CloneFailure, CloneOrder, GrowError, Guest, Vm,
};
pub use confinement::Confinement;
pub use device::{
    AttachError, Attached, AttachedDisk, AttachedNic, Caller, DeviceError, DeviceSpecs, DiskFormat,
    DiskKey, DiskSpec, MAX_DEVICES, Mac, MacError, NicSpec, OpenDevices, OpenDisk, OpenNic,
    open_devices,
};
pub use driver::{LaunchError, MonitorError};
pub use factory::{Factory, HostInfo};
pub use guard::{GuardError, Guardian, guard_leases};
pub use guest::{
    BindError, Binding, BoundFile, EndedBy, ExecError, ExecOutcome, ExecRequest, ExecStream,
    FileError, FileOwner, FilePiece, FileReader, FileWriter, GuestError, Identity, IdentityDigest,
    OfGuest, PartialOutput, Process, ProcessControl, ProcessError, ProcessOrder, StreamEnd,
    StreamInput, StreamOutput, StreamRequest, WindowSize, WriteOptions,
};
pub use host::{
    AccelError, Check, CleanError, CleanReport, HostCpu, LockError, OpenError, PlaceError,
    TmpfsError, UserError, Verdict, clean, doctor, vsock_refusal,
};
pub use id::{GenerationId, VmId};
pub use kernel::KernelVersion;
pub use memory::MemorySurvey;
pub use phases::{Phase, Phases};
pub use process::{Hypervisors, ProcessState};
pub use qemu::ProbeError;
pub use size::{MEMORY_STEP_MIB, Size, SizeError, SizeRange};
pub use spec::{Accel, AccelChoice, Argv, HostSettings, MachineType, TemplateSpec};
pub use supervise::{Supervision, abort_supervised, before_abort, supervise, supervise_thread};
pub use sync::lock;
pub use template::{
    BuildError, BuildProgress, BuildStep, CanaryReport, FileSeal, Files, FindError, ForgetError,
    Found, Generation, ListedGeneration, Manifest, Recipe, RollbackError, RoomError, StaleField,
    Staleness, UnverifiedField, Validity, VerifyReport,
};
pub use vm::{
    ConsoleFollower, Growth, LeaseRecord, RecordedState, RequestKey, Source, StartError, VmEnd,
};
pub use wire::LinkError;
