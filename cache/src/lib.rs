//! Keeps clones warm, and hands them out.
//!
//! Start at [`Cache`]: it finds or builds every template, keeps a pool of clones of each, and leases them as sandboxes.
//! It knows nothing of hypervisor command lines, QMP or HTTP.

mod backoff;
mod cache;
mod error;
mod lease;
mod mint;
mod pool;
mod request;
mod spec;
mod standin;
mod telemetry;
mod view;

pub use cache::Cache;
pub use error::{
    BoxError, CheckoutError, ConsoleError, RebuildError, ReleaseError, RenewError, ResizeError, SandboxExecError,
    TtlError,
};
pub use lease::Lease;
pub use mint::{
    CloneFacts, CloneFailure, FoundGeneration, GenerationFacts, LaunchOrder, LeaseFacts, LiveClone, LiveGeneration,
    Mint, RecordState, StepReport,
};
pub use request::{CheckoutRequest, OnEmpty, Resize};
pub use spec::{CacheSettings, MAX_CLONES, PoolSpec, Standby, TemplatePlan};
pub use standin::{BuildStep, ExecError, ExecOutcome, ExecRequest, GuestError, Identity, StaleField};
pub use telemetry::{StartPath, Telemetry};
pub use view::{
    BuildState, BuildView, CloneState, CloneView, GenerationView, PoolView, Readiness, SandboxView, Source,
    TemplateMemory, TemplateState, TemplateView,
};
