//! Every error of the cache as HTTP tells it: one match, without a `_`, so that a new error cannot be forgotten.

use std::error::Error;
use std::fmt::Write as _;

use vmint_cache::{
    CheckoutError, ConsoleError, DevicesError, ExecError, FileError, GuestError, RebuildError,
    ReloadError, RenewError, ResizeError, ResumeError, RollbackError, SandboxError,
    SandboxExecError, SandboxFileError, SandboxProcessError, UnknownSandbox, UnknownTemplate,
};

use super::code::Code;
use super::problem::Problem;
use super::view::OutputSoFar;
use crate::reload::ReloadFailure;

/// The guest kernel's number for a file that is not there.
const NO_SUCH_FILE: i32 = 2;

/// An operation of the cache that failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) enum Failure {
    NoTemplate(#[from] UnknownTemplate),
    NoSandbox(#[from] UnknownSandbox),
    Checkout(#[from] CheckoutError),
    Renew(#[from] RenewError),
    Exec(#[from] SandboxExecError),
    File(#[from] SandboxFileError),
    Process(#[from] SandboxProcessError),
    Console(#[from] ConsoleError),
    Resize(#[from] ResizeError),
    Rebuild(#[from] RebuildError),
    Reload(#[from] ReloadFailure),
    Rollback(#[from] RollbackError),
    Resume(#[from] ResumeError),
}

/// So that `?` is all that a handler does with an error of the cache.
impl<E> From<E> for Problem
where
    Failure: From<E>,
{
    fn from(error: E) -> Self {
        Self::of(&Failure::from(error))
    }
}

impl Problem {
    fn of(failure: &Failure) -> Self {
        let problem = |code| Self::new(code, with_sources(failure));
        match failure {
            Failure::NoTemplate(_)
            | Failure::Checkout(CheckoutError::UnknownTemplate(_))
            | Failure::Resize(ResizeError::UnknownTemplate(_))
            | Failure::Rebuild(RebuildError::UnknownTemplate(_))
            | Failure::Rollback(RollbackError::UnknownTemplate(_))
            | Failure::Resume(ResumeError::UnknownTemplate(_)) => problem(Code::UnknownTemplate),

            Failure::NoSandbox(_)
            | Failure::Renew(RenewError::UnknownSandbox(_))
            | Failure::Exec(SandboxError::UnknownSandbox(_))
            | Failure::File(SandboxError::UnknownSandbox(_))
            | Failure::Process(SandboxProcessError::UnknownSandbox(_))
            | Failure::Console(ConsoleError::UnknownSandbox(_)) => problem(Code::UnknownSandbox),

            Failure::Checkout(
                CheckoutError::PoolEmpty { retry_after, .. }
                | CheckoutError::NoRoom { retry_after, .. },
            ) => problem(Code::PoolEmpty).retry_after(*retry_after),
            Failure::Checkout(CheckoutError::QueueFull { retry_after, .. }) => {
                problem(Code::QueueFull).retry_after(*retry_after)
            }
            Failure::Console(ConsoleError::TooManyFollowers { .. }) => {
                problem(Code::TooManyFollowers).retry_after(super::limits::FOLLOWER_WAIT)
            }
            Failure::Checkout(CheckoutError::TemplateUnavailable { retry_after, .. }) => {
                problem(Code::TemplateUnavailable).retry_after(*retry_after)
            }
            Failure::Checkout(CheckoutError::ShuttingDown)
            | Failure::Resize(ResizeError::ShuttingDown)
            | Failure::Rebuild(RebuildError::ShuttingDown)
            | Failure::Rollback(RollbackError::ShuttingDown)
            | Failure::Resume(ResumeError::ShuttingDown)
            | Failure::Reload(ReloadFailure::Cache(ReloadError::ShuttingDown)) => {
                Self::shutting_down()
            }
            Failure::Checkout(CheckoutError::Draining) => {
                problem(Code::Draining).retry_after(super::limits::DRAIN_WAIT)
            }
            Failure::Reload(ReloadFailure::Load(_) | ReloadFailure::Slow { .. }) => {
                problem(Code::NotPossible)
            }
            Failure::Reload(ReloadFailure::Broken) => problem(Code::Internal),

            Failure::Checkout(CheckoutError::Devices(DevicesError::InUse(_))) => {
                problem(Code::Conflict)
            }
            Failure::Checkout(CheckoutError::Devices(
                DevicesError::Open(_) | DevicesError::NoHotplug { .. } | DevicesError::Refused(_),
            )) => problem(Code::NotPossible),

            Failure::Checkout(
                CheckoutError::Ttl(_)
                | CheckoutError::Size(_)
                | CheckoutError::NeverRoom(_)
                | CheckoutError::Refused { .. },
            )
            | Failure::Renew(RenewError::Ttl(_))
            | Failure::Resize(
                ResizeError::TargetAboveMax { .. }
                | ResizeError::TooMany { .. }
                | ResizeError::NoRoom(_),
            ) => problem(Code::NotPossible),
            Failure::Rebuild(RebuildError::AlreadyRunning { .. })
            | Failure::Rollback(RollbackError::Impossible(_) | RollbackError::Building { .. })
            | Failure::Resume(ResumeError::Exits)
            | Failure::Checkout(CheckoutError::KeyReused) => problem(Code::Conflict),
            Failure::Rollback(RollbackError::Failed(_)) => problem(Code::Internal),

            Failure::Process(SandboxProcessError::NoProcess { .. }) => problem(Code::NotFound),
            Failure::Process(SandboxProcessError::HasEnded { .. }) => problem(Code::Conflict),
            Failure::Exec(SandboxError::Failed(error))
            | Failure::Process(SandboxProcessError::Exec(error)) => {
                of_exec(error, with_sources(failure))
            }

            Failure::File(SandboxError::Failed(FileError::Guest(GuestError::Outdated {
                ..
            }))) => problem(Code::NotPossible),
            Failure::File(SandboxError::Failed(FileError::Guest(GuestError::TooManyStreams {
                ..
            }))) => problem(Code::TooManyProcesses).retry_after(super::limits::PROCESS_WAIT),
            Failure::File(SandboxError::Failed(FileError::Refused { errno, .. })) => {
                let is_missing = *errno == NO_SUCH_FILE;
                let code = if is_missing {
                    Code::NotFound
                } else {
                    Code::NotPossible
                };
                match *errno {
                    0 => problem(code),
                    errno => problem(code).errno(errno),
                }
            }
            Failure::Checkout(CheckoutError::Guest { .. })
            | Failure::Exec(SandboxError::Ended(_))
            | Failure::Process(SandboxProcessError::Ended(_))
            | Failure::File(SandboxError::Failed(FileError::Guest(_)) | SandboxError::Ended(_)) => {
                problem(Code::GuestError)
            }
            Failure::Checkout(CheckoutError::Host { .. })
            | Failure::Console(ConsoleError::Read { .. }) => problem(Code::Internal),
        }
    }
}

/// A command that did not run, or not to its end.
fn of_exec(error: &ExecError, detail: String) -> Problem {
    let problem = |code| Problem::new(code, detail);
    match error {
        ExecError::Spawn { errno, .. } => problem(Code::ExecFailed).errno(*errno),
        ExecError::Deadline { output, .. } => {
            problem(Code::Timeout).output(OutputSoFar::from(&**output))
        }
        ExecError::TooMany { .. } => {
            problem(Code::TooManyProcesses).retry_after(super::limits::PROCESS_WAIT)
        }
        ExecError::Invalid { .. } | ExecError::Guest(GuestError::Outdated { .. }) => {
            problem(Code::NotPossible)
        }
        ExecError::Guest(GuestError::TooManyStreams { .. }) => {
            problem(Code::TooManyProcesses).retry_after(super::limits::PROCESS_WAIT)
        }
        ExecError::Guest(_) => problem(Code::GuestError),
    }
}

impl Problem {
    /// The service takes no new work.
    pub(crate) fn shutting_down() -> Self {
        Self::new(Code::ShuttingDown, "the service is stopping")
            .retry_after(super::limits::RESTART_WAIT)
    }
}

/// An error and what caused it, on one line; a cause that the text ends with already is not told twice.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            let _ = write!(text, ": {cause}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use vmint_cache::TtlError;

    use super::*;

    #[test]
    fn the_causes_of_an_error_are_told_with_it() {
        let source = io::Error::other("the disk is on fire");
        let failure = Failure::from(ConsoleError::Read {
            id: "x".to_owned(),
            source,
        });
        insta::assert_snapshot!(
            Problem::of(&failure).detail(),
            @r#"cannot read the console of sandbox "x": the disk is on fire"#
        );
    }

    #[test]
    fn a_limit_is_told_with_the_refusal() {
        let ttl = TtlError {
            asked: None,
            max: Duration::from_secs(60),
        };
        let problem = Problem::from(RenewError::Ttl(ttl));
        assert_eq!(problem.code(), Code::NotPossible);
        assert!(problem.detail().contains("60 s"), "{}", problem.detail());
    }
}
