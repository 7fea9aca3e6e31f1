//! What is streamed to and from a guest: the values, and the channels that carry them.
//!
//! A stream is two channels. The one from the guest is bounded: what is not taken is not asked for, so a slow taker slows
//! the guest down and nothing piles up in the service. Whoever drops a stream ends what it was for: the command is
//! killed, a file that was not finished is dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{ExecError, GuestError};
use crate::Argv;

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in each.
    pub columns: u16,
}

/// A command to run with its streams open.
#[derive(Clone, Debug)]
pub struct StreamRequest {
    /// The program and its arguments; a program without a slash is looked up in the guest's `PATH`.
    pub argv: Argv,
    /// Added to the guest's own environment.
    pub env: BTreeMap<String, String>,
    /// The working directory; `/` when it is none.
    pub cwd: Option<String>,
    /// The guest's user it runs as: a name or a number; the agent's own (root) when it is none.
    pub user: Option<String>,
    /// Whether standard input is open; it is empty otherwise.
    pub stdin: bool,
    /// A terminal of this size in place of pipes.
    pub tty: Option<WindowSize>,
    /// When it is killed with its descendants; `None` leaves it to [`super::ExecRequest::LONGEST`].
    pub timeout: Option<Duration>,
    /// Whether it gets the environment that was bound to the sandbox. vmint's own helpers do not.
    pub bound_env: bool,
}

impl Default for StreamRequest {
    fn default() -> Self {
        Self {
            argv: Argv::new(),
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            stdin: false,
            tty: None,
            timeout: None,
            bound_env: true,
        }
    }
}

/// What goes to a streaming command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamInput {
    /// Bytes of standard input.
    Bytes(Bytes),
    /// Standard input has ended.
    End,
    /// The terminal has another size.
    Resize(WindowSize),
}

/// What comes from a streaming command.
#[derive(Clone, Debug)]
pub enum StreamOutput {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// How it ended. Nothing comes after it.
    Ended(Result<StreamEnd, ExecError>),
}

/// How a streaming command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// Its exit code; none after a signal.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A command that runs with its streams open. Dropped, it is killed; a process that was attached to goes on.
#[derive(Debug)]
pub struct ExecStream {
    /// To the command.
    pub input: mpsc::Sender<StreamInput>,
    /// From the command. It closes after [`StreamOutput::Ended`].
    pub output: mpsc::Receiver<StreamOutput>,
}

/// A file of the guest that is being read.
#[derive(Debug)]
pub struct FileReader {
    /// Bytes, as the guest's kernel said when it was opened; `None` where it does not know, as in `/proc` and `/sys`.
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: u32,
    /// Its content. It closes at the end, or after an error.
    pub chunks: mpsc::Receiver<Result<Bytes, FileError>>,
}

/// How a file is stored. What is not said stays as it is; a new file is 0644 and root's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permission bits.
    pub mode: Option<u32>,
    /// The file's owner.
    pub owner: Option<FileOwner>,
}

/// The owner of a file, in the guest's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOwner {
    /// The user.
    pub uid: u32,
    /// The group; it is left as it is where it is `None`.
    pub gid: Option<u32>,
}

/// A piece of a file that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilePiece {
    /// The next bytes.
    Bytes(Bytes),
    /// That was all: it takes its place.
    End,
}

/// A file of the guest that is being written. Dropped before [`FilePiece::End`], it leaves nothing.
#[derive(Debug)]
pub struct FileWriter {
    /// Its content.
    pub pieces: mpsc::Sender<FilePiece>,
    /// The bytes that were stored, once it is in its place. It fails early when the guest cannot go on.
    pub stored: oneshot::Receiver<Result<u64, FileError>>,
}

/// Why a file could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FileError {
    /// The guest's kernel said no.
    #[error("{path}: {reason}")]
    Refused {
        /// The file.
        path: String,
        /// Its error number: `ENOENT` is 2, `EISDIR` 21, `ENOSPC` 28; 0 where it has none.
        errno: i32,
        /// In words.
        reason: String,
    },
    /// The guest failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// What a checkout binds to a warm clone: all of it, or an error.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// A host name.
    pub hostname: Option<String>,
    /// Added to the environment of every command. Kept in the guest and nowhere else.
    pub env: BTreeMap<String, String>,
    /// Small files.
    pub files: Vec<BoundFile>,
}

/// A small file that is bound to a clone.
#[derive(Clone, PartialEq, Eq)]
pub struct BoundFile {
    /// Its absolute path in the guest.
    pub path: String,
    /// What is in it.
    pub content: Vec<u8>,
    /// Permission bits; without, those of the file that is there, or 0644 for a new one.
    pub mode: Option<u32>,
}

/// Why a clone could not be bound.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BindError {
    /// The guest's kernel said no to what was asked: a path that is a folder, a host name that is too long.
    #[error("{reason}")]
    Refused {
        /// What, and why. Never a value or a content.
        reason: String,
    },
    /// The guest failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// Names and sizes only: what is bound may be secret.
impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding")
            .field("hostname", &self.hostname)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("files", &self.files)
            .finish()
    }
}

impl std::fmt::Debug for BoundFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundFile")
            .field("path", &self.path)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}
