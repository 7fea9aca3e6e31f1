//! Processes of a clone's guest.

use super::handle::Vm;
use crate::guest::{ExecStream, KeptOutput, Process, ProcessError, ProcessOrder};

/// What is asked for, in a message.
const WHAT: &str = "a process";

impl Vm {
    /// Starts a process that runs until it ends. It is asked for once: after an error of the guest, it may run.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have started it.
    pub async fn start_process(&self, order: ProcessOrder) -> Result<Process, ProcessError> {
        let agent = self.agent(WHAT).await?;
        self.asked(agent.start_process(&order)).await
    }

    /// The processes of the guest in the order of their start: those that run, and the newest that have ended.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        let agent = self.agent(WHAT).await?;
        self.asked(agent.processes()).await
    }

    /// One of them.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn find_process(&self, process: &str) -> Result<Process, ProcessError> {
        let agent = self.agent(WHAT).await?;
        self.asked(agent.find_process(process)).await
    }

    /// The newest output of one.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn kept_output(&self, process: &str) -> Result<KeptOutput, ProcessError> {
        let agent = self.agent(WHAT).await?;
        let output = async {
            // It is never closed. Each that has it reads for a bounded time.
            let _turn = self.talk.keeping.acquire().await;
            agent.kept_output(process).await
        };
        self.asked(output).await
    }

    /// One more reader and writer of one; with `replay`, its kept output comes first. Dropped, the process goes on.
    ///
    /// # Errors
    /// See [`ProcessError`]; what goes wrong later is the stream's end.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn attach_process(
        &self,
        process: &str,
        replay: bool,
    ) -> Result<ExecStream, ProcessError> {
        let agent = self.agent(WHAT).await?;
        self.asked(agent.attach_process(process, replay)).await
    }

    /// Sends a signal, by its number, to one.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have sent it.
    pub async fn signal_process(&self, process: &str, signal: i32) -> Result<(), ProcessError> {
        let agent = self.agent(WHAT).await?;
        self.asked(agent.signal_process(process, signal)).await
    }

    /// Kills one with its descendants, or forgets one that has ended.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have done it.
    pub async fn end_process(&self, process: &str) -> Result<(), ProcessError> {
        let agent = self.agent(WHAT).await?;
        self.asked(agent.end_process(process)).await
    }
}
