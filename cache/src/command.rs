//! Commands in sandboxes, and their consoles.

use std::time::Duration;

use vmint_factory::{ExecError, ExecOutcome, ExecRequest, GuestError};

use crate::cache::Cache;
use crate::error::{ConsoleError, SandboxError, SandboxExecError};
use crate::sandbox::Found;
use crate::stream::{Report, unless_ended};

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
        let Found { sandbox, pool } = self.node().sandboxes.get(id)?;
        let report = Report::begin(self.node(), &pool, sandbox.is_first_command());
        let result = unless_ended(&sandbox, sandbox.vm().exec(request)).await;
        report.ended(result.as_ref().err());
        result
    }

    /// The newest part of a sandbox's console. It blocks for the reading of a file.
    ///
    /// # Errors
    /// The sandbox is unknown, or the file cannot be read.
    pub fn console(&self, id: &str) -> Result<Vec<u8>, ConsoleError> {
        let found = self.node().sandboxes.get(id)?;
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

/// What a command's end is called in the metrics: the code that HTTP answers.
pub(crate) fn outcome(error: Option<&SandboxExecError>) -> &'static str {
    match error {
        None => "ok",
        Some(SandboxError::UnknownSandbox(_)) => "unknown_sandbox",
        Some(SandboxError::Ended(_)) => "guest_error",
        Some(SandboxError::Failed(error)) => match error {
            ExecError::Spawn { .. } => "exec_failed",
            ExecError::Deadline { .. } => "timeout",
            ExecError::TooMany { .. } => "too_many_processes",
            ExecError::Invalid { .. } | ExecError::Guest(GuestError::Outdated { .. }) => {
                "not_possible"
            }
            ExecError::Guest(_) => "guest_error",
        },
    }
}
