//! What the cache shows of itself: plain values, taken at one moment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
pub use vmint_factory::Source;
use vmint_factory::{
    Accel, AgentState, Attached, BuildStep, Confinement, Phases, ProcessControl, StaleField,
    UnverifiedField,
};

/// One leased sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxView {
    /// Its id: that of the clone.
    pub id: String,
    /// The host's user that it was handed to.
    pub owner_uid: u32,
    /// The template it is a clone of.
    pub template: String,
    /// The generation of that template.
    pub generation: String,
    /// Always `leased`: nothing else is shown as a sandbox.
    pub state: &'static str,
    /// Where it came from.
    pub source: Source,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Its address on AF_VSOCK, where it has one.
    pub vsock_cid: Option<u32>,
    /// What keeps its hypervisor from the rest of the host, and what does not.
    pub confinement: Arc<[Confinement]>,
    /// The hypervisor's process.
    pub pid: u32,
    /// The guest's name.
    pub hostname: String,
    /// The guest's machine id.
    pub machine_id: String,
    /// The socket of its serial console.
    pub console_socket: PathBuf,
    /// The socket of the port that belongs to whoever has it.
    pub runtime_socket: PathBuf,
    /// When the clone was made.
    pub created_at: Timestamp,
    /// When it was leased.
    pub leased_at: Timestamp,
    /// When the lease ends; `None` lasts until the release.
    pub expires_at: Option<Timestamp>,
    /// How long the checkout took.
    pub checkout: Duration,
    /// How long the start of the clone took, by phase.
    pub startup: Phases,
    /// What came with the request.
    pub metadata: BTreeMap<String, String>,
    /// Devices of the host that it has.
    pub devices: Attached,
    /// Whether its guest can be talked to.
    pub agent: AgentState,
    /// Whether its guest has not answered for its `guest_timeout`.
    pub unresponsive: bool,
    /// How long ago its guest was heard from; `None` while this service has not heard from it.
    pub last_seen: Option<Duration>,
}

/// Where a clone is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloneState {
    /// Being made.
    Launching,
    /// Warm, proved, unused.
    Ready,
    /// Somebody's sandbox.
    Leased,
    /// Being ended, for whatever reason.
    Releasing,
}

impl CloneState {
    /// The name in metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launching => "launching",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Releasing => "releasing",
        }
    }
}

/// One living clone of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneView {
    /// Its id.
    pub id: String,
    /// Where it is in its life.
    pub state: CloneState,
    /// The generation it was made from.
    pub generation: Option<String>,
    /// Time since its launch was ordered.
    pub age: Duration,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// The template.
    pub template: String,
    /// Warm clones to keep.
    pub target: u32,
    /// Clones alive at most.
    pub max: u32,
    /// Warm, unused clones.
    pub ready: usize,
    /// Those of them that are of the current generation.
    pub updated: usize,
    /// Clones being made.
    pub launching: usize,
    /// Sandboxes.
    pub leased: usize,
    /// Those of them whose guest does not answer.
    pub unresponsive: usize,
    /// Clones being ended.
    pub releasing: usize,
    /// Checkouts that wait.
    pub waiters: usize,
    /// Checkouts that found a ready clone.
    pub hits: u64,
    /// Checkouts that found none.
    pub misses: u64,
    /// Why clones cannot be made at present.
    pub degraded: Option<String>,
    /// Whether it drains, by itself or with the whole node.
    pub draining: bool,
    /// The way to another generation, while it is on it.
    pub roll: Option<RollView>,
    /// Every living clone, oldest first.
    pub clones: Vec<CloneView>,
}

/// What a pool comes to, without its clones: asked for often, and at the same cost whatever their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLevel {
    /// The template.
    pub template: String,
    /// Warm clones to keep.
    pub target: u32,
    /// Warm, unused clones.
    pub ready: usize,
    /// Clones being made.
    pub launching: usize,
    /// Sandboxes.
    pub leased: usize,
    /// Those of them whose guest does not answer.
    pub unresponsive: usize,
    /// Clones being ended.
    pub releasing: usize,
    /// Checkouts that wait.
    pub waiters: usize,
    /// Why clones cannot be made at present.
    pub degraded: Option<String>,
    /// Whether it drains, by itself or with the whole node.
    pub draining: bool,
    /// Whether it ever had as many clones as it is to keep.
    pub was_filled: bool,
}

/// A pool on its way from one generation to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollView {
    /// The generation before.
    pub from: String,
    /// The new one.
    pub to: String,
    /// Ready clones of the new one.
    pub updated: usize,
    /// All ready clones.
    pub ready: usize,
    /// Warm clones to keep.
    pub target: u32,
    /// How long the new generation has yet to get another clone ready; `None` while none of it is being made, or where it
    /// is not gone back.
    pub deadline: Option<Duration>,
}

/// How far the node is with its drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainView {
    /// Whether it drains.
    pub draining: bool,
    /// Whether it drains and no clone is left.
    pub drained: bool,
    /// Sandboxes.
    pub leased: usize,
    /// Warm, unused clones.
    pub ready: usize,
    /// Clones being made.
    pub launching: usize,
    /// Clones being ended.
    pub releasing: usize,
    /// Whether the service ends when it is drained.
    pub exit: bool,
}

/// Whether a template can be cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TemplateState {
    /// It has a sound current generation. A rebuild may run beside it: see [`TemplateView::build`].
    Ready,
    /// It has none yet, and one is being looked for or built.
    Building,
    /// It has none, and the last build failed; the next try comes by itself.
    Failed,
}

impl TemplateState {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Building => "building",
            Self::Failed => "failed",
        }
    }
}

/// One template.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateView {
    /// Its name.
    pub name: String,
    /// Whether it can be cloned.
    pub state: TemplateState,
    /// The generation that new clones are made from.
    pub current: Option<String>,
    /// The current generation, then those beside it that are on disk or in use, the newest first.
    pub generations: Vec<GenerationView>,
    /// The build that runs.
    pub build: Option<String>,
    /// Whether the current generation, or what was found in its place, is not what would be built now.
    pub stale: bool,
    /// In which fields.
    pub stale_fields: Vec<StaleField>,
    /// The fields that cannot be compared at present.
    pub unverified_fields: Vec<UnverifiedField>,
    /// The last roll of its pool since the service has started.
    pub last_roll: Option<LastRoll>,
    /// Why the last build failed, or why its generation was given up; `None` after a success.
    pub last_error: Option<String>,
}

/// How a roll stands, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RollOutcome {
    /// The pool is on its way.
    Running,
    /// All of its warm clones are of the new generation.
    Rolled,
    /// The new generation was given up, and the one before is current again.
    RolledBack,
}

impl RollOutcome {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Rolled => "rolled",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// The last roll of a template's pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRoll {
    /// The generation before.
    pub from: String,
    /// The new one.
    pub to: String,
    /// How it stands, or has ended.
    pub outcome: RollOutcome,
    /// Why it was rolled back, or what the roll itself was for where that was no new build.
    pub reason: Option<String>,
}

/// One generation of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationView {
    /// Its id.
    pub generation: String,
    /// When it was built.
    pub built_at: Timestamp,
    /// What ran its virtual CPUs.
    pub accel: Accel,
    /// The QEMU that saved it.
    pub qemu_version: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Living clones of it.
    pub clones: usize,
    /// How long each phase of its build took.
    pub phases: Vec<(String, Duration)>,
    /// What the canary clones proved.
    pub report: serde_json::Value,
    /// How its guest keeps processes apart; `None` in a generation of a version that did not record it.
    pub process_control: Option<ProcessControl>,
}

/// Where a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuildState {
    /// It runs, or waits for another template's build to end.
    Running,
    /// Its generation was published.
    Succeeded,
    /// It made nothing.
    Failed,
}

impl BuildState {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// A generation that was only kept to go back to, and was dropped because something needed its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedGeneration {
    /// Its template: not always the one that needed the memory.
    pub template: String,
    /// The generation.
    pub generation: String,
}

/// One build of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildView {
    /// Its id.
    pub id: String,
    /// The template.
    pub template: String,
    /// Where it is.
    pub state: BuildState,
    /// The step it is in, or ended in; `None` while it waits for its turn.
    pub step: Option<BuildStep>,
    /// What it made.
    pub generation: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// How long each phase took; empty until it has succeeded.
    pub phases: Vec<(String, Duration)>,
    /// Generations that were only kept to go back to, and were dropped for want of memory.
    pub dropped: Vec<DroppedGeneration>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Whether the service can do its work, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether checkouts can be expected to succeed.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
}

/// What all virtual machines together were admitted to of the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLevel {
    /// The most that may be admitted, bytes; `None` when there is no limit.
    pub budget_bytes: Option<u64>,
    /// What is admitted, bytes.
    pub admitted_bytes: u64,
}

/// Memory of one template and its clones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateMemory {
    /// The template.
    pub template: String,
    /// Blocks of the shared memory files, each counted once, bytes.
    pub template_bytes: u64,
    /// Sum of the clones' private pages, bytes.
    pub clone_private_bytes: u64,
}
