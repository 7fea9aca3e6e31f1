//! Commands in the guest.

use std::collections::BTreeMap;
use std::time::Duration;

use super::GuestError;
use crate::Argv;

/// A command to run in a guest.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// The program and its arguments; a program without a slash is looked up in the guest's `PATH`.
    pub argv: Argv,
    /// Added to the guest's own environment.
    pub env: BTreeMap<String, String>,
    /// The working directory; `/` when it is none.
    pub cwd: Option<String>,
    /// What the command reads.
    pub stdin: Vec<u8>,
    /// When it is killed, with its process group; `None` leaves it to [`ExecRequest::LONGEST`].
    pub timeout: Option<Duration>,
    /// How much of each of stdout and stderr is kept, bytes.
    pub max_output_bytes: u64,
}

impl ExecRequest {
    /// Longest that any command may run: every wait has a deadline.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
    /// Most that can be kept of each stream. The agent itself stops at 16 MiB without saying so.
    pub const MAX_OUTPUT_BYTES: u64 = 8 * 1024 * 1024;

    /// A command with no input, the default output limit and a deadline.
    #[must_use]
    pub fn new(argv: Argv, timeout: Duration) -> Self {
        Self { argv, timeout: Some(timeout), max_output_bytes: Self::MAX_OUTPUT_BYTES, ..Self::default() }
    }
}

/// How a command in the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code; none after a signal.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it wrote to the error stream.
    pub stderr: Vec<u8>,
    /// Whether more was written than was kept.
    pub truncated: bool,
    /// From the order to the answer.
    pub elapsed: Duration,
}

/// Why a command has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The program could not be started.
    #[error("cannot run {argv0:?} in the guest: {reason}")]
    Spawn {
        /// The program.
        argv0: String,
        /// The guest kernel's words.
        reason: String,
        /// The guest kernel's error number (`ENOENT` is 2, `EACCES` 13).
        errno: i32,
    },
    /// Its time was over; it was killed in the guest.
    #[error("the command did not end within {}; it was killed", crate::text::duration(*.after))]
    Deadline {
        /// The time it had.
        after: Duration,
    },
    /// The request cannot be passed on.
    #[error("the command cannot be passed to the guest: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The guest failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
}
