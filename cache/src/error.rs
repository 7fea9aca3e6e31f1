//! Why the cache said no: one enum an operation, so that the type tells what can happen.

use std::time::Duration;

use thiserror::Error;
use vmint_factory::{ExecError, FileError, ProcessError, SizeError};

use crate::admission::NoRoom;
use crate::devices::DevicesError;

/// An error of a lower layer, carried whole.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// No template has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no template {name:?}")]
pub struct UnknownTemplate {
    /// The name asked for.
    pub name: String,
}

/// No sandbox has this id, or none has it any longer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no sandbox {id:?}")]
pub struct UnknownSandbox {
    /// The id asked for.
    pub id: String,
}

impl UnknownTemplate {
    pub(crate) fn of(name: &str) -> Self {
        let name = name.to_owned();
        Self { name }
    }
}

impl UnknownSandbox {
    pub(crate) fn of(id: &str) -> Self {
        let id = id.to_owned();
        Self { id }
    }
}

/// Why a checkout failed.
#[derive(Debug, Error)]
pub enum CheckoutError {
    /// No such template.
    #[error(transparent)]
    UnknownTemplate(#[from] UnknownTemplate),
    /// Nothing was ready, and nothing became ready in time.
    #[error("no clone was ready within {} ms: {reason}", waited.as_millis())]
    PoolEmpty {
        /// How long the checkout waited.
        waited: Duration,
        /// What the pool was doing.
        reason: String,
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// Too many checkouts wait already.
    #[error("{queue} checkouts wait already, which is the limit")]
    QueueFull {
        /// The limit.
        queue: usize,
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// The pool or the whole service drains.
    #[error("it is being drained: there are no new sandboxes")]
    Draining,
    /// The service stops.
    #[error("the service is stopping")]
    ShuttingDown,
    /// The template has no generation to clone.
    #[error("the template {name:?} is not available: {reason}")]
    TemplateUnavailable {
        /// The template.
        name: String,
        /// Why.
        reason: String,
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// The lease asked for is longer than allowed.
    #[error(transparent)]
    Ttl(#[from] TtlError),
    /// The devices asked for cannot be had.
    #[error(transparent)]
    Devices(#[from] DevicesError),
    /// The key was used for another request.
    #[error(
        "this Idempotency-Key was used for another request, and is remembered while its sandbox lives and 10 minutes after: use a new one"
    )]
    KeyReused,
    /// The guest, or its agent, says that it cannot be done: another clone of the template would say the same.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why it cannot be.
        reason: String,
    },
    /// No clone of the template can be of the size asked for.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The host's memory has no room at present for what would be plugged in.
    #[error("no room for a sandbox of this size at present: {sum}")]
    NoRoom {
        /// What does not fit.
        sum: NoRoom,
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// The host's memory can never have room for what would be plugged in.
    #[error("no room for a sandbox of this size, whatever else ends: {0}")]
    NeverRoom(NoRoom),
    /// The clone could not be made fit for this request, and neither could one more.
    #[error("{what}")]
    Guest {
        /// What did not work.
        what: &'static str,
        /// Why not.
        #[source]
        source: BoxError,
    },
    /// The host did not take what a lease needs, also with another clone, for which the first one made room: a full run
    /// directory.
    #[error("{what}")]
    Host {
        /// What did not work.
        what: &'static str,
        /// Why not.
        #[source]
        source: BoxError,
    },
}

impl CheckoutError {
    /// The stable code that metrics and HTTP use.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTemplate { .. } => "unknown_template",
            Self::PoolEmpty { .. } | Self::NoRoom { .. } => "pool_empty",
            Self::QueueFull { .. } => "queue_full",
            Self::Draining => "draining",
            Self::ShuttingDown => "shutting_down",
            Self::TemplateUnavailable { .. } => "template_unavailable",
            Self::Devices(error) => error.code(),
            Self::KeyReused => "conflict",
            Self::Ttl(_) | Self::Size(_) | Self::NeverRoom(_) | Self::Refused { .. } => {
                "not_possible"
            }
            Self::Guest { .. } => "guest_error",
            Self::Host { .. } => "internal",
        }
    }
}

/// The lease asked for is longer than the node allows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is longer than max_ttl, {} s", asked_text(*.asked), max.as_secs())]
pub struct TtlError {
    /// The lease; `None` was to last until the release.
    pub asked: Option<Duration>,
    /// The limit.
    pub max: Duration,
}

fn asked_text(asked: Option<Duration>) -> String {
    match asked {
        Some(ttl) => format!("a lease of {} s", ttl.as_secs()),
        None => "a lease until the release".to_owned(),
    }
}

/// Why a lease was not renewed.
#[derive(Debug, Error)]
pub enum RenewError {
    /// No such sandbox, or no longer.
    #[error(transparent)]
    UnknownSandbox(#[from] UnknownSandbox),
    /// The lease asked for is longer than allowed.
    #[error(transparent)]
    Ttl(#[from] TtlError),
}

/// Why something in a sandbox came to nothing.
#[derive(Debug, Error)]
pub enum SandboxError<E> {
    /// No such sandbox, or no longer.
    #[error(transparent)]
    UnknownSandbox(#[from] UnknownSandbox),
    /// The guest could not do it.
    #[error(transparent)]
    Failed(E),
    /// The sandbox ended meanwhile.
    #[error("the sandbox ended meanwhile: {0}")]
    Ended(String),
}

/// Why a command gave no outcome.
pub type SandboxExecError = SandboxError<ExecError>;

/// Why a file of a sandbox was not read or written.
pub type SandboxFileError = SandboxError<FileError>;

/// Why a request about a process of a sandbox failed.
#[derive(Debug, Error)]
pub enum SandboxProcessError {
    /// No such sandbox, or no longer.
    #[error(transparent)]
    UnknownSandbox(#[from] UnknownSandbox),
    /// No such process, or it was forgotten.
    #[error("there is no process {process:?} in sandbox {sandbox:?}")]
    NoProcess {
        /// The sandbox.
        sandbox: String,
        /// The id asked for.
        process: String,
    },
    /// The process has ended.
    #[error("the process {process:?} has ended")]
    HasEnded {
        /// Its id.
        process: String,
    },
    /// The guest could not do it.
    #[error(transparent)]
    Exec(ExecError),
    /// The sandbox ended meanwhile.
    #[error("the sandbox ended meanwhile: {0}")]
    Ended(String),
}

impl SandboxProcessError {
    pub(crate) fn of(sandbox: &str, error: SandboxError<ProcessError>) -> Self {
        let failed = match error {
            SandboxError::UnknownSandbox(unknown) => return unknown.into(),
            SandboxError::Ended(why) => return Self::Ended(why),
            SandboxError::Failed(failed) => failed,
        };
        match failed {
            ProcessError::NoProcess { process } => Self::NoProcess {
                sandbox: sandbox.to_owned(),
                process,
            },
            ProcessError::HasEnded { process } => Self::HasEnded { process },
            ProcessError::Exec(error) => Self::Exec(error),
        }
    }
}

/// Why a console could not be read.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// No such sandbox, or no longer.
    #[error(transparent)]
    UnknownSandbox(#[from] UnknownSandbox),
    /// As many follow it as may.
    #[error("{max} clients follow the console of sandbox {id:?} already, which is the limit")]
    TooManyFollowers {
        /// The sandbox.
        id: String,
        /// The limit.
        max: usize,
    },
    /// The file could not be read.
    #[error("cannot read the console of sandbox {id:?}")]
    Read {
        /// The sandbox.
        id: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Why a pool was not resized.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResizeError {
    /// No such template.
    #[error(transparent)]
    UnknownTemplate(#[from] UnknownTemplate),
    /// More warm clones than may live.
    #[error("target {target} is above max {max}")]
    TargetAboveMax {
        /// The target that would hold.
        target: u32,
        /// The maximum that would hold.
        max: u32,
    },
    /// A maximum that no machine can hold.
    #[error("max {max} is above {limit}, the most that a pool may have")]
    TooMany {
        /// The maximum asked for.
        max: u32,
        /// The limit.
        limit: u32,
    },
    /// So many warm clones do not fit into the host's memory.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The service stops.
    #[error("the service is stopping")]
    ShuttingDown,
}

/// Why no rebuild began.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RebuildError {
    /// No such template.
    #[error(transparent)]
    UnknownTemplate(#[from] UnknownTemplate),
    /// One runs already.
    #[error("build {build} of this template runs already")]
    AlreadyRunning {
        /// Its id.
        build: String,
    },
    /// The service stops.
    #[error("the service is stopping")]
    ShuttingDown,
}

/// Why a template was not rolled back.
#[derive(Debug, Error)]
pub enum RollbackError {
    /// No such template.
    #[error(transparent)]
    UnknownTemplate(#[from] UnknownTemplate),
    /// There is no earlier generation, or none that can be used.
    #[error(transparent)]
    Impossible(BoxError),
    /// A build of it runs, and would replace what is gone back to.
    #[error("build {build} of this template runs: wait for its end")]
    Building {
        /// Its id.
        build: String,
    },
    /// It could not be done.
    #[error(transparent)]
    Failed(BoxError),
    /// The service stops.
    #[error("the service is stopping")]
    ShuttingDown,
}

/// Why a pool or the node does not go on after a drain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResumeError {
    /// No such template.
    #[error(transparent)]
    UnknownTemplate(#[from] UnknownTemplate),
    /// The service ends when it is drained: that was asked for.
    #[error("the service ends when it is drained, as was asked for")]
    Exits,
    /// The service stops.
    #[error("the service is stopping")]
    ShuttingDown,
}
