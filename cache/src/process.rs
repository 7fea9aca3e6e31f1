//! Processes of sandboxes: they belong to no connection, and run until they end.

use std::sync::Arc;

use vmint_factory::{PartialOutput, Process, ProcessError, ProcessOrder};

use crate::cache::Cache;
use crate::error::SandboxProcessError;
use crate::mint::LiveClone;
use crate::sandbox::Found;
use crate::stream::{CommandStream, unless_ended};

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
        self.ask(id, async |vm| vm.start_process(order).await).await
    }

    /// The processes of a sandbox in the order of their start: those that run, and the newest that have ended.
    ///
    /// # Errors
    /// See [`SandboxProcessError`].
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn processes(&self, id: &str) -> Result<Vec<Process>, SandboxProcessError> {
        self.ask(id, async |vm| vm.processes().await).await
    }

    /// One of them.
    ///
    /// # Errors
    /// See [`SandboxProcessError`].
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn process(&self, id: &str, process: &str) -> Result<Process, SandboxProcessError> {
        self.ask(id, async |vm| vm.find_process(process).await)
            .await
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
    ) -> Result<PartialOutput, SandboxProcessError> {
        self.ask(id, async |vm| vm.kept_output(process).await).await
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
        let Found { sandbox, .. } = self.node().sandboxes.get(id)?;
        let attached = unless_ended(&sandbox, sandbox.vm().attach_process(process, replay)).await;
        let stream = attached.map_err(|error| SandboxProcessError::of(id, error))?;
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
        self.ask(id, async |vm| vm.signal_process(process, signal).await)
            .await
    }

    /// Kills a process with its descendants, or forgets one that has ended.
    ///
    /// # Errors
    /// See [`SandboxProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have done it.
    pub async fn end_process(&self, id: &str, process: &str) -> Result<(), SandboxProcessError> {
        self.ask(id, async |vm| vm.end_process(process).await).await
    }

    /// Asks the guest of a sandbox for something about its processes, as long as the sandbox lives.
    async fn ask<T, F: Future<Output = Result<T, ProcessError>>>(
        &self,
        id: &str,
        ask: impl FnOnce(Arc<dyn LiveClone>) -> F,
    ) -> Result<T, SandboxProcessError> {
        let Found { sandbox, .. } = self.node().sandboxes.get(id)?;
        let answer = unless_ended(&sandbox, ask(Arc::clone(sandbox.vm()))).await;
        answer.map_err(|error| SandboxProcessError::of(id, error))
    }
}
