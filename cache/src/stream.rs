//! Streams of sandboxes: commands whose streams stay open, and files.
//!
//! What always holds: a stream ends when its sandbox does, and says so; dropping one ends what it was for (the
//! command is killed, a file that was not finished is dropped, a process that was attached to is left); nothing is kept
//! here, so a slow taker slows the guest.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use vmint_factory::{
    ExecError, ExecStream, FileError, FilePiece, FileReader, FileWriter, GuestError, OfGuest,
    StreamEnd, StreamInput, StreamOutput, StreamRequest, WriteOptions,
};

use crate::cache::Cache;
use crate::command::{END_NOTICE, outcome};
use crate::error::{SandboxError, SandboxExecError, SandboxFileError};
use crate::node::Node;
use crate::pool::Pool;
use crate::sandbox::{Found, Sandbox};
use crate::telemetry::{StartPath, Telemetry};

/// A command of a sandbox with its streams open. Dropped, it is killed; a process that was attached to goes on.
pub struct CommandStream {
    stream: ExecStream,
    sandbox: Arc<Sandbox>,
    /// Nothing for a process: when it began is not known here.
    report: Option<Report>,
    /// How it ended, once that has come: kept while the reason is looked for.
    end: Option<Result<StreamEnd, ExecError>>,
}

/// What comes from a [`CommandStream`].
#[derive(Debug)]
pub enum CommandOutput {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// How it ended. Nothing comes after it.
    Ended(Result<StreamEnd, SandboxExecError>),
}

/// A file of a sandbox that is being read.
pub struct SandboxFileReader {
    reader: FileReader,
    sandbox: Arc<Sandbox>,
}

/// A file of a sandbox that is being written. Dropped before [`SandboxFileWriter::finish`], it leaves nothing.
pub struct SandboxFileWriter {
    writer: FileWriter,
    sandbox: Arc<Sandbox>,
}

impl Cache {
    /// Runs a command in a sandbox with its streams open.
    ///
    /// # Errors
    /// See [`SandboxExecError`]; what fails later comes as [`CommandOutput::Ended`].
    ///
    /// # Cancel safety
    /// Dropped, the command is killed.
    pub async fn exec_stream(
        &self,
        id: &str,
        request: StreamRequest,
    ) -> Result<CommandStream, SandboxExecError> {
        let Found { sandbox, pool } = self.node().sandboxes.get(id)?;
        // A command that waits for somebody's input says nothing about how fast the sandbox answers.
        let is_answer = request.tty.is_none() && !request.stdin;
        let is_first = sandbox.is_first_command() && is_answer;
        let report = Report::begin(self.node(), &pool, is_first);
        match unless_ended(&sandbox, sandbox.vm().exec_stream(request)).await {
            Ok(stream) => Ok(CommandStream {
                stream,
                sandbox,
                report: Some(report),
                end: None,
            }),
            Err(error) => {
                report.ended(Some(&error));
                Err(error)
            }
        }
    }

    /// Opens a file of a sandbox to read it.
    ///
    /// # Errors
    /// See [`SandboxFileError`].
    ///
    /// # Cancel safety
    /// Dropped, the file is closed.
    pub async fn read_file(
        &self,
        id: &str,
        path: &str,
    ) -> Result<SandboxFileReader, SandboxFileError> {
        let Found { sandbox, .. } = self.node().sandboxes.get(id)?;
        let reader = unless_ended(&sandbox, sandbox.vm().read_file(path)).await?;
        Ok(SandboxFileReader { reader, sandbox })
    }

    /// Begins to write a file of a sandbox.
    ///
    /// # Errors
    /// See [`SandboxFileError`].
    ///
    /// # Cancel safety
    /// Dropped, nothing of the file is left.
    pub async fn write_file(
        &self,
        id: &str,
        path: &str,
        options: WriteOptions,
    ) -> Result<SandboxFileWriter, SandboxFileError> {
        let Found { sandbox, .. } = self.node().sandboxes.get(id)?;
        let writer = unless_ended(&sandbox, sandbox.vm().write_file(path, options)).await?;
        Ok(SandboxFileWriter { writer, sandbox })
    }
}

impl CommandStream {
    pub(crate) fn attached(stream: ExecStream, sandbox: Arc<Sandbox>) -> Self {
        Self {
            stream,
            sandbox,
            report: None,
            end: None,
        }
    }

    /// What goes to the command. A full channel is a command that does not read.
    #[must_use]
    pub fn input(&self) -> mpsc::Sender<StreamInput> {
        self.stream.input.clone()
    }

    /// What comes next. After [`CommandOutput::Ended`] nothing does: it must not be asked again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> CommandOutput {
        if self.end.is_none() {
            let output = tokio::select! {
                biased;
                output = self.stream.output.recv() => output,
                why = self.sandbox.ended() => {
                    return self.ended(Err(SandboxError::Ended(why.to_owned())));
                }
            };
            match output {
                Some(StreamOutput::Stdout(bytes)) => return CommandOutput::Stdout(bytes),
                Some(StreamOutput::Stderr(bytes)) => return CommandOutput::Stderr(bytes),
                Some(StreamOutput::Ended(end)) => self.end = Some(end),
                None => self.end = Some(Err(ExecError::Guest(GuestError::Closed))),
            }
        }
        let end = match &self.end {
            Some(Err(error)) => Err(explained(&self.sandbox, error.clone()).await),
            Some(Ok(end)) => Ok(*end),
            None => Err(SandboxError::Failed(ExecError::Guest(GuestError::Closed))),
        };
        self.ended(end)
    }

    /// Resolves with the reason once the sandbox has ended, whatever of the command's output was not taken yet.
    pub fn sandbox_ended(&self) -> impl Future<Output = &'static str> + Send + use<> {
        let sandbox = Arc::clone(&self.sandbox);
        async move { sandbox.ended().await }
    }

    fn ended(&self, end: Result<StreamEnd, SandboxExecError>) -> CommandOutput {
        if let Some(report) = &self.report {
            report.ended(end.as_ref().err());
        }
        CommandOutput::Ended(end)
    }
}

impl SandboxFileReader {
    /// Bytes, as the guest's kernel said when it was opened; `None` where it does not know, as in `/proc` and `/sys`.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.reader.size
    }

    /// Permission bits.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.reader.mode
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// See [`SandboxFileError`]; nothing comes after it.
    ///
    /// # Cancel safety
    /// No bytes are lost; the reason of a failure may be.
    pub async fn next(&mut self) -> Option<Result<Bytes, SandboxFileError>> {
        let chunk = async { self.reader.chunks.recv().await.transpose() };
        unless_ended(&self.sandbox, chunk).await.transpose()
    }
}

impl SandboxFileWriter {
    /// Adds bytes, once the guest has room for them.
    ///
    /// # Errors
    /// See [`SandboxFileError`]; nothing can be added after it.
    ///
    /// # Cancel safety
    /// Dropped, the bytes are added or not: only the whole writer can be dropped with it.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), SandboxFileError> {
        self.give(FilePiece::Bytes(bytes)).await
    }

    /// That was all: puts the file in its place. Returns the bytes that were stored.
    ///
    /// # Errors
    /// See [`SandboxFileError`]; nothing of the file is left.
    ///
    /// # Cancel safety
    /// Dropped, the file is in its place or nothing of it is left.
    pub async fn finish(mut self) -> Result<u64, SandboxFileError> {
        self.give(FilePiece::End).await?;
        let Self { writer, sandbox } = self;
        let stored = async { writer.stored.await.unwrap_or_else(|_| Err(closed())) };
        unless_ended(&sandbox, stored).await
    }

    async fn give(&mut self, piece: FilePiece) -> Result<(), SandboxFileError> {
        let (pieces, stored) = (&self.writer.pieces, &mut self.writer.stored);
        let given = async {
            // The guest may say no before it has seen all.
            tokio::select! {
                biased;
                early = &mut *stored => return Err(refusal(early)),
                given = pieces.send(piece) => if given.is_ok() { return Ok(()) },
            }
            Err(refusal(stored.await))
        };
        unless_ended(&self.sandbox, given).await
    }
}

/// Why a file is not taken further.
fn refusal<E>(stored: Result<Result<u64, FileError>, E>) -> FileError {
    match stored {
        Ok(Err(error)) => error,
        // Stored before it was whole, or never answered: the channel is not what it must be.
        Ok(Ok(_)) | Err(_) => closed(),
    }
}

fn closed() -> FileError {
    FileError::Guest(GuestError::Closed)
}

/// Does something in a sandbox, as long as that lives.
pub(crate) async fn unless_ended<T, E: OfGuest>(
    sandbox: &Sandbox,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, SandboxError<E>> {
    let result = tokio::select! {
        biased;
        result = work => result,
        why = sandbox.ended() => return Err(SandboxError::Ended(why.to_owned())),
    };
    match result {
        Ok(value) => Ok(value),
        Err(error) => Err(explained(sandbox, error).await),
    }
}

/// Why work in a sandbox failed. A guest that ended falls silent first: the true reason is a moment behind.
async fn explained<E: OfGuest>(sandbox: &Sandbox, error: E) -> SandboxError<E> {
    if error.of_guest().is_none() {
        return SandboxError::Failed(error);
    }
    match timeout(END_NOTICE, sandbox.ended()).await {
        Ok(why) => SandboxError::Ended(why.to_owned()),
        Err(_) => SandboxError::Failed(error),
    }
}

/// What the metrics are told of a command.
pub(crate) struct Report {
    telemetry: Arc<dyn Telemetry>,
    template: String,
    is_first: bool,
    begun: Instant,
}

impl Report {
    pub(crate) fn begin(node: &Node, pool: &Pool, is_first: bool) -> Self {
        Self {
            telemetry: node.telemetry.clone(),
            template: pool.template().to_owned(),
            is_first,
            begun: Instant::now(),
        }
    }

    pub(crate) fn ended(&self, error: Option<&SandboxExecError>) {
        let took = self.begun.elapsed();
        self.telemetry.exec(&self.template, outcome(error), took);
        if self.is_first && error.is_none() {
            self.telemetry
                .first_exec(&self.template, StartPath::Clone, took);
        }
    }
}
