//! Keeps clones warm, and hands them out.
//!
//! Start at [`Cache`]: it finds or builds every template, keeps a pool of clones of each, and leases them as sandboxes.
//! It knows nothing of hypervisor command lines, QMP or HTTP.
//!
//! ```text
//!  cache.rs      the front: what can be asked for      pool/        keeps clones ready, and leases them
//!  show.rs       ... what can be seen                  template/    keeps a sound generation
//!  command.rs    ... commands and consoles             sandbox.rs   leased clones, by id
//!  drain.rs      ... a rest for a pool or for all
//!  stream.rs     ... live commands and files           repeats.rs   checkouts that come twice
//!  process.rs    ... processes that no connection ends
//!  reload.rs     ... and changed while it works        templates.rs   all of them, and those that go
//!  readiness.rs  can it work?                          uniqueness.rs  no two clones are the same
//!  events.rs     what happens, for followers           node.rs      what all of them share
//!  devices/      who has which disk and tap            admission/   who has how much of the host's memory
//!  draining.rs   no new sandboxes, for a while or for good
//!  mint.rs       what is needed of a factory           gate.rs      how many launches at the same time
//! ```

mod admission;
mod asking;
mod backoff;
mod cache;
mod command;
mod console;
mod devices;
mod drain;
mod draining;
mod entry;
mod error;
mod events;
mod factory_mint;
mod gate;
mod kept;
mod lease;
mod mint;
mod node;
mod pool;
mod process;
mod readiness;
mod reload;
mod repeats;
mod request;
mod sandbox;
mod show;
mod spec;
mod stream;
mod sync;
mod telemetry;
mod template;
mod templates;
mod uniqueness;
mod view;

pub use admission::{MemoryBudget, NoRoom};
pub use cache::{Cache, CheckedOut};
pub use console::FollowedConsole;
pub use devices::{Conflict, DevicesError};
pub use error::{
    BoxError, CheckoutError, ConsoleError, RebuildError, RenewError, ResizeError, ResumeError,
    RollbackError, SandboxError, SandboxExecError, SandboxFileError, SandboxProcessError, TtlError,
    UnknownSandbox, UnknownTemplate,
};
pub use events::{Event, Followed, Follower, Happening};
pub use lease::Lease;
pub use mint::{
    AdoptedClone, AdoptedLease, CloneFailure, ConsoleReader, Fault, FoundGeneration,
    GenerationFacts, LiveClone, LiveGeneration, Mint, NoWayBack, RecordState, StepReport,
};
pub use reload::{ReloadError, Reloaded};
pub use request::{CheckoutRequest, DeviceOrder, OnEmpty, Resize, SocketOwner};
pub use spec::{CacheSettings, Leased, MAX_CLONES, OnStale, PoolSpec, Standby, TemplatePlan};
pub use stream::{CommandOutput, CommandStream, SandboxFileReader, SandboxFileWriter};
pub use telemetry::{StartPath, Telemetry};
pub use view::{
    BuildState, BuildView, CloneState, CloneView, DrainView, DroppedGeneration, GenerationView,
    LastRoll, MemoryLevel, PoolLevel, PoolView, Readiness, RollOutcome, RollView, SandboxView,
    Source, TemplateMemory, TemplateState, TemplateView,
};
// The parts of the factory that this crate's own interface speaks of.
pub use vmint_factory::{
    AgentState, AttachError, Attached, AttachedDisk, AttachedNic, BindError, Binding, BoundFile,
    BuildStep, Caller, CloneFacts, CloneOrder, Confinement, DeviceError, DeviceSpecs, DiskFormat,
    DiskKey, DiskSpec, EndedBy, ExecError, ExecOutcome, ExecRequest, ExecStream, FileError,
    FileOwner, FilePiece, FileReader, FileWriter, GrowError, Guest, GuestError, Identity,
    IdentityDigest, LeaseRecord, OfGuest, PartialOutput, Phase, Process, ProcessControl,
    ProcessError, ProcessOrder, RequestKey, Size, SizeError, SizeRange, StaleField, Staleness,
    StreamEnd, StreamInput, StreamOutput, StreamRequest, UnverifiedField, WindowSize, WriteOptions,
};
