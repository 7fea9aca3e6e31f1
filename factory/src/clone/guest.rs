//! What can be asked of a clone's guest.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::guest::{
    BindError, Binding, ExecError, ExecOutcome, ExecRequest, ExecStream, FileError, FileReader,
    FileWriter, GuestError, PartialOutput, Process, ProcessError, ProcessOrder, StreamRequest,
    WriteOptions,
};

/// The guest of a clone: its answers, commands, processes and files.
///
/// It is a trait so that those who ask can be tested without a guest; [`Vm`](crate::Vm) is the real one.
pub trait Guest: Send + Sync {
    /// Whether the guest still answers. A paused guest cannot: its process being there is all that is asked then.
    ///
    /// # Errors
    /// When it does not answer in time, or the machine has ended.
    ///
    /// # Cancel safety
    /// Safe.
    fn ping(&self, deadline: Duration) -> BoxFuture<'_, Result<(), GuestError>>;

    /// Binds it to its user: a host name, an environment, small files. One round trip.
    ///
    /// # Errors
    /// See [`BindError`]. Part of it may have been done.
    ///
    /// # Cancel safety
    /// A dropped call may leave any part of it done.
    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Result<(), BindError>>;

    /// Runs a command in the guest. Several may run at once; beyond some sixty they take turns, and the time of each
    /// begins with its turn.
    ///
    /// # Errors
    /// See [`ExecError`].
    ///
    /// # Cancel safety
    /// A dropped call kills the command with its descendants.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutcome, ExecError>>;

    /// Runs a command with its streams open.
    ///
    /// # Errors
    /// See [`ExecError`]; what goes wrong later is the stream's end.
    ///
    /// # Cancel safety
    /// A dropped call, or stream, kills the command.
    fn exec_stream(&self, request: StreamRequest) -> BoxFuture<'_, Result<ExecStream, ExecError>>;

    /// Starts a process that runs until it ends. It is asked for once: after an error of the guest, it may run.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have started it.
    fn start_process(&self, order: ProcessOrder) -> BoxFuture<'_, Result<Process, ProcessError>>;

    /// The processes of the guest in the order of their start: those that run, and the newest that have ended.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// Safe.
    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>, ProcessError>>;

    /// One of them.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// Safe.
    fn find_process<'a>(&'a self, process: &'a str)
    -> BoxFuture<'a, Result<Process, ProcessError>>;

    /// The newest output of one.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// Safe.
    fn kept_output<'a>(
        &'a self,
        process: &'a str,
    ) -> BoxFuture<'a, Result<PartialOutput, ProcessError>>;

    /// One more reader and writer of one; with `replay`, its kept output comes first. Dropped, the process goes on.
    ///
    /// # Errors
    /// See [`ProcessError`]; what goes wrong later is the stream's end.
    ///
    /// # Cancel safety
    /// Safe.
    fn attach_process<'a>(
        &'a self,
        process: &'a str,
        replay: bool,
    ) -> BoxFuture<'a, Result<ExecStream, ProcessError>>;

    /// Sends a signal, by its number, to one.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have sent it.
    fn signal_process<'a>(
        &'a self,
        process: &'a str,
        signal: i32,
    ) -> BoxFuture<'a, Result<(), ProcessError>>;

    /// Kills one with its descendants, or forgets one that has ended.
    ///
    /// # Errors
    /// See [`ProcessError`].
    ///
    /// # Cancel safety
    /// A dropped call may have done it.
    fn end_process<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<(), ProcessError>>;

    /// Opens a file of the guest to read it.
    ///
    /// # Errors
    /// See [`FileError`].
    ///
    /// # Cancel safety
    /// Safe; a dropped reader closes the file.
    fn read_file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<FileReader, FileError>>;

    /// Begins to write a file of the guest. Missing folders are made.
    ///
    /// # Errors
    /// See [`FileError`]; what the guest's kernel refuses is what the writer's `stored` says.
    ///
    /// # Cancel safety
    /// A dropped call or writer leaves no file.
    fn write_file<'a>(
        &'a self,
        path: &'a str,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<FileWriter, FileError>>;
}
