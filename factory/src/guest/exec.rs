//! Commands in the guest.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::GuestError;
use super::agent::Agent;
use super::command::{Collected, Command, Facts, GRACE, bounded, silent};
use super::link::Opening;
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
    /// The guest's user it runs as: a name or a number; the agent's own (root) when it is none.
    pub user: Option<String>,
    /// What the command reads.
    pub stdin: Bytes,
    /// When it is killed, with its process group; `None` leaves it to [`ExecRequest::LONGEST`].
    pub timeout: Option<Duration>,
    /// How much of each of stdout and stderr is kept, bytes.
    pub max_output_bytes: u64,
}

impl ExecRequest {
    /// Longest that any command may run: every wait has a deadline.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
    /// Most that can be kept of each stream.
    pub const MAX_OUTPUT_BYTES: u64 = 8 * 1024 * 1024;

    /// A command with no input, the default output limit and a deadline.
    #[must_use]
    pub fn new(argv: Argv, timeout: Duration) -> Self {
        Self {
            argv,
            timeout: Some(timeout),
            max_output_bytes: Self::MAX_OUTPUT_BYTES,
            ..Self::default()
        }
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

/// What a command or a process has written, as far as it is kept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PartialOutput {
    /// The newest part of its output; of the terminal, where it has one.
    pub stdout: Vec<u8>,
    /// The same of its error stream.
    pub stderr: Vec<u8>,
    /// Whether it wrote more than that.
    pub truncated: bool,
}

impl PartialOutput {
    /// What is told of each stream with an error.
    pub const MAX_BYTES: usize = 1 << 20;

    /// The newest part of each stream.
    #[must_use]
    pub fn newest(stdout: Vec<u8>, stderr: Vec<u8>, truncated: bool) -> Self {
        let is_cut = [&stdout, &stderr]
            .iter()
            .any(|it| it.len() > Self::MAX_BYTES);
        Self {
            stdout: newest(stdout),
            stderr: newest(stderr),
            truncated: truncated || is_cut,
        }
    }
}

/// Output is the user's: no log has it.
impl fmt::Debug for PartialOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stdout, stderr) = (self.stdout.len(), self.stderr.len());
        write!(f, "{stdout} + {stderr} bytes")
    }
}

/// The last bytes of a stream; a text does not begin within a character.
fn newest(mut bytes: Vec<u8>) -> Vec<u8> {
    let surplus = bytes.len().saturating_sub(PartialOutput::MAX_BYTES);
    if surplus > 0 {
        let is_rest = |byte: &&u8| **byte & 0xC0 == 0x80;
        let rest = bytes[surplus..].iter().take(3).take_while(is_rest).count();
        bytes.drain(..surplus + rest);
    }
    bytes
}

/// Why a command has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
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
        /// What it had written by then.
        output: Box<PartialOutput>,
    },
    /// As many processes run in the guest as may.
    #[error("{limit} processes run in the sandbox already, which is the limit; hint: end one")]
    TooMany {
        /// The limit.
        limit: usize,
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

impl Agent {
    /// Runs a command in the guest, and collects what it writes. The request is given up once it is on its way: a command
    /// may run for a day.
    ///
    /// # Cancel safety
    /// A dropped call kills the command, with its descendants, a moment later.
    pub(crate) async fn exec(&self, request: ExecRequest) -> Result<ExecOutcome, ExecError> {
        let timeout = bounded(request.timeout);
        let begun = Instant::now();
        // All of it in one write: the command, what it reads, and the end of that.
        let opening = Opening {
            object: Command::buffered(&request)?.object()?,
            is_whole: !request.stdin.is_empty(),
            input: request.stdin,
        };
        drop(request.env);
        let stream = self.link.open(opening)?;
        let facts = Facts {
            argv0: request.argv.into_iter().next().unwrap_or_default(),
            timeout: Some(timeout),
            is_attached: false,
        };
        let max_bytes = request.max_output_bytes.min(ExecRequest::MAX_OUTPUT_BYTES);
        let mut collected = Collected::new(max_bytes);
        let longest = timeout + GRACE;
        let result = tokio::time::timeout(longest, collected.all(&stream)).await;
        let result = result.unwrap_or_else(|_| Err(silent(longest)))?;
        let end = match facts.end(&result) {
            Ok(end) => end,
            Err(ExecError::Deadline { after, .. }) => {
                let output = collected.newest();
                return Err(ExecError::Deadline { after, output });
            }
            Err(error) => return Err(error),
        };
        Ok(ExecOutcome {
            exit_code: end.exit_code,
            signal: end.signal,
            stdout: collected.kept.stdout,
            stderr: collected.kept.stderr,
            truncated: collected.kept.truncated,
            elapsed: begun.elapsed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_whose_time_is_over_leaves_the_newest_of_its_output() {
        let newest = |stdout: &[u8]| {
            let (stdout, stderr) = (stdout.to_vec(), b"err".to_vec());
            PartialOutput::newest(stdout, stderr, false)
        };
        let short = newest(b"so far");
        assert_eq!(
            (&*short.stdout, &*short.stderr),
            (&b"so far"[..], &b"err"[..])
        );
        assert!(!short.truncated);
        let text = "ä".repeat(PartialOutput::MAX_BYTES / 2) + "x";
        let long = newest(text.as_bytes());
        assert!(long.truncated && long.stdout.len() < PartialOutput::MAX_BYTES);
        assert!(std::str::from_utf8(&long.stdout).is_ok_and(|it| it.ends_with("äx")));
    }
}
