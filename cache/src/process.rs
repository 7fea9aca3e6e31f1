//! Processes of sandboxes: they belong to no connection, and run until they end.

use vmint_factory::{ExecStream, KeptOutput, Process, ProcessError, ProcessOrder};

use crate::cache::Cache;
use crate::error::SandboxProcessError;
use crate::sandbox::{Found, Sandbox};
use crate::stream::{CommandStream, OfGuest, Stopped, unless_ended};

impl Cache {
    /// Starts a process in a sandbox. It runs until it ends, is ended, or the sandbox is over.
    ///
    /// # Errors
    /// See [`SandboxProcessError`]. After one of the guest's, the process may run.
    ///
    /// # Cancel safety
    /// A dropped call may have started it.
    pub async fn start_process(
        &self,
        id: &str,
        order: ProcessOrder,
    ) -> Result<Process, SandboxProcessError> {
        let sandbox = self.sandbox_of(id)?;
        let started = unless_ended(&sandbox, sandbox.vm().start_process(order)).await;
        started.map_err(|stopped| stopped.in_sandbox(id))
    }

    /// The processes of a sandbox in the order of their start: those that run, and the newest that have ended.
    ///
    /// # Errors
    /// See [`SandboxProcessError`].
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn processes(&self, id: &str) -> Result<Vec<Process>, SandboxProcessError> {
        let sandbox = self.sandbox_of(id)?;
        let listed = unless_ended(&sandbox, sandbox.vm().processes()).await;
        listed.map_err(|stopped| stopped.in_sandbox(id))
    }

    /// One of them.
    ///
    /// # Errors
    /// See [`SandboxProcessError`].
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn process(&self, id: &str, process: &str) -> Result<Process, SandboxProcessError> {
        let sandbox = self.sandbox_of(id)?;
        let found = unless_ended(&sandbox, sandbox.vm().find_process(process)).await;
        found.map_err(|stopped| stopped.in_sandbox(id))
    }

    /// The newest output of a process; empty where none is kept.
    ///
    /// # Errors
    /// See [`SandboxProcessError`].
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn kept_output(
        &self,
        id: &str,
        process: &str,
    ) -> Result<KeptOutput, SandboxProcessError> {
        let sandbox = self.sandbox_of(id)?;
        let kept = unless_ended(&sandbox, sandbox.vm().kept_output(process)).await;
        kept.map_err(|stopped| stopped.in_sandbox(id))
    }

    /// One more reader and writer of a process; with `replay`, its kept output comes first. Dropped, the process goes on.
    ///
    /// # Errors
    /// See [`SandboxProcessError`]; what fails later comes as [`crate::CommandOutput::Ended`].
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn attach_process(
        &self,
        id: &str,
        process: &str,
        replay: bool,
    ) -> Result<CommandStream, SandboxProcessError> {
        let sandbox = self.sandbox_of(id)?;
        let attached: Result<ExecStream, _> =
            unless_ended(&sandbox, sandbox.vm().attach_process(process, replay)).await;
        let stream = attached.map_err(|stopped| stopped.in_sandbox(id))?;
        Ok(CommandStream::attached(stream, sandbox))
    }

    /// Sends a signal, by its number, to a process.
    ///
    /// # Errors
    /// See [`SandboxProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have sent it.
    pub async fn signal_process(
        &self,
        id: &str,
        process: &str,
        signal: i32,
    ) -> Result<(), SandboxProcessError> {
        let sandbox = self.sandbox_of(id)?;
        let sent = unless_ended(&sandbox, sandbox.vm().signal_process(process, signal)).await;
        sent.map_err(|stopped| stopped.in_sandbox(id))
    }

    /// Kills a process with its descendants, or forgets one that has ended.
    ///
    /// # Errors
    /// See [`SandboxProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have done it.
    pub async fn end_process(&self, id: &str, process: &str) -> Result<(), SandboxProcessError> {
        let sandbox = self.sandbox_of(id)?;
        let ended = unless_ended(&sandbox, sandbox.vm().end_process(process)).await;
        ended.map_err(|stopped| stopped.in_sandbox(id))
    }

    fn sandbox_of(&self, id: &str) -> Result<std::sync::Arc<Sandbox>, SandboxProcessError> {
        let unknown = || SandboxProcessError::UnknownSandbox { id: id.to_owned() };
        let Found { sandbox, .. } = self.node().sandboxes.get(id).ok_or_else(unknown)?;
        Ok(sandbox)
    }
}

impl OfGuest for ProcessError {
    fn is_of_guest(&self) -> bool {
        matches!(self, Self::Exec(error) if error.is_of_guest())
    }
}

impl Stopped<ProcessError> {
    fn in_sandbox(self, id: &str) -> SandboxProcessError {
        match self {
            Self::Error(error) => SandboxProcessError::of(id, error),
            Self::Ended(why) => SandboxProcessError::Ended(why),
        }
    }
}
