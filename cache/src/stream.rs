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
    ExecError, ExecStream, FileError, FilePiece, FileReader, FileWriter, GuestError, StreamEnd,
    StreamInput, StreamOutput, StreamRequest, WriteOptions,
};

use crate::cache::Cache;
use crate::command::{END_NOTICE, outcome};
use crate::error::{SandboxExecError, SandboxFileError};
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
        let unknown = || SandboxExecError::UnknownSandbox { id: id.to_owned() };
        let Found { sandbox, pool } = self.node().sandboxes.get(id).ok_or_else(unknown)?;
        // A command that waits for somebody's input says nothing about how fast the sandbox answers.
        let is_answer = request.tty.is_none() && !request.stdin;
        let report = Report {
            telemetry: self.node().telemetry.clone(),
            template: pool.template().to_owned(),
            is_first: sandbox.is_first_command() && is_answer,
            begun: Instant::now(),
        };
        match unless_ended(&sandbox, sandbox.vm().exec_stream(request)).await {
            Ok(stream) => Ok(CommandStream {
                stream,
                sandbox,
                report: Some(report),
                end: None,
            }),
            Err(stopped) => {
                let error = stopped.into();
                report.ended(Err(&error));
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
        let unknown = || SandboxFileError::UnknownSandbox { id: id.to_owned() };
        let Found { sandbox, .. } = self.node().sandboxes.get(id).ok_or_else(unknown)?;
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
        let unknown = || SandboxFileError::UnknownSandbox { id: id.to_owned() };
        let Found { sandbox, .. } = self.node().sandboxes.get(id).ok_or_else(unknown)?;
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
                    return self.ended(Err(Stopped::Ended(why.to_owned())));
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
            Some(Err(error)) if error.is_of_guest() => {
                let stopped = Stopped::Error(error.clone());
                Err(stopped.explained(&self.sandbox).await)
            }
            Some(Err(error)) => Err(Stopped::Error(error.clone())),
            Some(Ok(end)) => Ok(*end),
            None => Err(Stopped::Error(ExecError::Guest(GuestError::Closed))),
        };
        self.ended(end)
    }

    /// Resolves with the reason once the sandbox has ended, whatever of the command's output was not taken yet.
    pub fn sandbox_ended(&self) -> impl Future<Output = &'static str> + Send + use<> {
        let sandbox = Arc::clone(&self.sandbox);
        async move { sandbox.ended().await }
    }

    fn ended(&self, end: Result<StreamEnd, Stopped<ExecError>>) -> CommandOutput {
        let end = end.map_err(SandboxExecError::from);
        if let Some(report) = &self.report {
            report.ended(end.as_ref());
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
        let stopped = tokio::select! {
            biased;
            chunk = self.reader.chunks.recv() => match chunk? {
                Ok(bytes) => return Some(Ok(bytes)),
                Err(error) => Stopped::Error(error),
            },
            why = self.sandbox.ended() => Stopped::Ended(why.to_owned()),
        };
        Some(Err(stopped.explained(&self.sandbox).await.into()))
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
        Ok(unless_ended(&sandbox, stored).await?)
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
        Ok(unless_ended(&self.sandbox, given).await?)
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

/// Why work in a sandbox came to nothing.
pub(crate) enum Stopped<E> {
    /// The work failed.
    Error(E),
    /// The sandbox ended under it.
    Ended(String),
}

/// Does something in a sandbox, as long as that lives.
pub(crate) async fn unless_ended<T, E: OfGuest>(
    sandbox: &Sandbox,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Stopped<E>> {
    let result = tokio::select! {
        biased;
        result = work => result.map_err(Stopped::Error),
        why = sandbox.ended() => Err(Stopped::Ended(why.to_owned())),
    };
    match result {
        Ok(value) => Ok(value),
        Err(stopped) => Err(stopped.explained(sandbox).await),
    }
}

impl<E: OfGuest> Stopped<E> {
    /// A guest that ended falls silent first: the true reason is a moment behind.
    async fn explained(self, sandbox: &Sandbox) -> Self {
        match self {
            Self::Error(error) if error.is_of_guest() => {
                match timeout(END_NOTICE, sandbox.ended()).await {
                    Ok(why) => Self::Ended(why.to_owned()),
                    Err(_) => Self::Error(error),
                }
            }
            stopped => stopped,
        }
    }
}

/// Errors that can mean that the whole machine has ended.
pub(crate) trait OfGuest {
    fn is_of_guest(&self) -> bool;
}

impl OfGuest for ExecError {
    fn is_of_guest(&self) -> bool {
        matches!(self, Self::Guest(_))
    }
}

impl OfGuest for FileError {
    fn is_of_guest(&self) -> bool {
        matches!(self, Self::Guest(_))
    }
}

impl From<Stopped<ExecError>> for SandboxExecError {
    fn from(stopped: Stopped<ExecError>) -> Self {
        match stopped {
            Stopped::Error(error) => Self::Exec(error),
            Stopped::Ended(why) => Self::Ended(why),
        }
    }
}

impl From<Stopped<FileError>> for SandboxFileError {
    fn from(stopped: Stopped<FileError>) -> Self {
        match stopped {
            Stopped::Error(error) => Self::File(error),
            Stopped::Ended(why) => Self::Ended(why),
        }
    }
}

/// What the metrics are told of a command.
struct Report {
    telemetry: Arc<dyn Telemetry>,
    template: String,
    is_first: bool,
    begun: Instant,
}

impl Report {
    fn ended(&self, result: Result<&StreamEnd, &SandboxExecError>) {
        let took = self.begun.elapsed();
        self.telemetry
            .exec(&self.template, outcome(result.err()), took);
        if self.is_first && result.is_ok() {
            self.telemetry
                .first_exec(&self.template, StartPath::Clone, took);
        }
    }
}
