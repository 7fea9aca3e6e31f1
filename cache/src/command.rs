//! Commands in sandboxes, and their consoles.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use vmint_factory::{ExecError, ExecOutcome, ExecRequest};

use crate::cache::Cache;
use crate::error::{ConsoleError, SandboxExecError};
use crate::sandbox::{Found, Sandbox};
use crate::telemetry::StartPath;

/// How long the news of a machine's end may come after its guest's silence.
pub(crate) const END_NOTICE: Duration = Duration::from_millis(250);

impl Cache {
    /// Runs a command in a sandbox.
    ///
    /// # Errors
    /// See [`SandboxExecError`].
    ///
    /// # Cancel safety
    /// Dropped, the command is killed in the guest.
    pub async fn exec(
        &self,
        id: &str,
        request: ExecRequest,
    ) -> Result<ExecOutcome, SandboxExecError> {
        let unknown = || SandboxExecError::UnknownSandbox { id: id.to_owned() };
        let Found { sandbox, pool } = self.node().sandboxes.get(id).ok_or_else(unknown)?;
        let is_first = sandbox.is_first_command();
        let begun = Instant::now();
        let result = run(&sandbox, request).await;
        let took = begun.elapsed();
        self.node()
            .telemetry
            .exec(pool.template(), outcome(result.as_ref().err()), took);
        if is_first && result.is_ok() {
            self.node()
                .telemetry
                .first_exec(pool.template(), StartPath::Clone, took);
        }
        result
    }

    /// The newest part of a sandbox's console. It blocks for the reading of a file.
    ///
    /// # Errors
    /// The sandbox is unknown, or the file cannot be read.
    pub fn console(&self, id: &str) -> Result<Vec<u8>, ConsoleError> {
        let unknown = || ConsoleError::UnknownSandbox { id: id.to_owned() };
        let found = self.node().sandboxes.get(id).ok_or_else(unknown)?;
        found
            .sandbox
            .vm()
            .console()
            .map_err(|source| ConsoleError::Read {
                id: id.to_owned(),
                source,
            })
    }
}

async fn run(sandbox: &Sandbox, request: ExecRequest) -> Result<ExecOutcome, SandboxExecError> {
    let result = tokio::select! {
        biased;
        result = sandbox.vm().exec(request) => result,
        why = sandbox.ended() => return Err(SandboxExecError::Ended(why.to_owned())),
    };
    let Err(error) = result else {
        return result.map_err(Into::into);
    };
    // A guest that ended falls silent first: the true reason is a moment behind.
    if let ExecError::Guest(_) = error
        && let Ok(why) = timeout(END_NOTICE, sandbox.ended()).await
    {
        return Err(SandboxExecError::Ended(why.to_owned()));
    }
    Err(error.into())
}

/// What a command's end is called in the metrics: the code that HTTP answers.
pub(crate) fn outcome(error: Option<&SandboxExecError>) -> &'static str {
    match error {
        None => "ok",
        Some(SandboxExecError::UnknownSandbox { .. }) => "unknown_sandbox",
        Some(SandboxExecError::Exec(ExecError::Spawn { .. })) => "exec_failed",
        Some(SandboxExecError::Exec(ExecError::Deadline { .. })) => "timeout",
        Some(SandboxExecError::Exec(ExecError::TooMany { .. })) => "too_many_processes",
        Some(SandboxExecError::Exec(ExecError::Invalid { .. } | ExecError::Unsupported { .. })) => {
            "not_possible"
        }
        Some(SandboxExecError::Exec(ExecError::Guest(_)) | SandboxExecError::Ended(_)) => {
            "guest_error"
        }
    }
}
