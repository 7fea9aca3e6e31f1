//! Processes of a clone's guest.

use super::handle::Vm;
use crate::guest::{ExecError, ExecStream, KeptOutput, Process, ProcessError, ProcessOrder};

/// The agent of this commit has no processes yet.
fn none<T>() -> Result<T, ProcessError> {
    Err(ProcessError::Exec(ExecError::Unsupported {
        what: "a process without a connection",
        reason: "the guest's agent has none".to_owned(),
    }))
}

impl Vm {
    /// Whether its guest's agent is of a version that cannot be talked to.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        false
    }

    /// Starts a process.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn start_process(&self, _: ProcessOrder) -> Result<Process, ProcessError> {
        none()
    }

    /// The processes of the guest.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        none()
    }

    /// One of them.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn find_process(&self, _: &str) -> Result<Process, ProcessError> {
        none()
    }

    /// The newest output of one.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn kept_output(&self, _: &str) -> Result<KeptOutput, ProcessError> {
        none()
    }

    /// One more reader and writer of one.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn attach_process(&self, _: &str, _: bool) -> Result<ExecStream, ProcessError> {
        none()
    }

    /// Sends a signal to one.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn signal_process(&self, _: &str, _: i32) -> Result<(), ProcessError> {
        none()
    }

    /// Kills or forgets one.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn end_process(&self, _: &str) -> Result<(), ProcessError> {
        none()
    }
}
