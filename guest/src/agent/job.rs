//! One command: its process, its streams, its deadline.
//!
//! ```text
//! running ──ends──────────────────► ended
//!    └──deadline──► killed ──ends─► ended (timed out)
//!                     └──patience─► given up: answered, and waited for without anybody asking
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::kin;
use crate::command::{Buffer, Program, Relay, SpawnError, Streams};
use crate::sys::{self, Ended};

/// A killed process is gone in microseconds, unless it hangs in the kernel; then it is answered for all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// Descriptors that a command may have to be polled for: its end, stdout, stderr, stdin.
pub(super) const ENTRIES: usize = 4;

/// Which streams are kept. The others go nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capture {
    Nothing,
    Stdout,
    Stderr,
    Separate,
    /// stderr as part of stdout.
    Merged,
}

/// A command to run.
pub(super) struct Order {
    pub(super) program: Program,
    /// Nothing: the command reads from /dev/null.
    pub(super) stdin: Vec<u8>,
    pub(super) timeout: Option<Duration>,
    pub(super) max_output_bytes: u64,
    pub(super) capture: Capture,
}

/// How a command ended, and what it has written.
pub(super) struct Outcome {
    /// `None`: it was killed, and has not ended all the same.
    pub(super) ended: Option<Ended>,
    pub(super) timed_out: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) stdout_truncated: bool,
    pub(super) stderr_truncated: bool,
}

pub(super) struct Job {
    pid: libc::pid_t,
    /// Readable once the process has ended.
    end: OwnedFd,
    stdout: Relay<Vec<u8>>,
    stderr: Relay<Vec<u8>>,
    stdin: Option<Feed>,
    /// The time to kill it, and once that was done, the time to give up on it.
    deadline: Option<Instant>,
    timed_out: bool,
}

impl Job {
    pub(super) fn start(order: Order, nowhere: &File) -> Result<Self, SpawnError> {
        let pipes = |error: io::Error| SpawnError::new("make a pipe: ", &error);
        let (stdout, out_end) = stream(matches!(
            order.capture,
            Capture::Stdout | Capture::Separate | Capture::Merged
        ))
        .map_err(pipes)?;
        let (stderr, err_end) =
            stream(matches!(order.capture, Capture::Stderr | Capture::Separate)).map_err(pipes)?;
        let (stdin, in_end) = Feed::of(order.stdin).map_err(pipes)?;
        let nowhere = nowhere.as_fd();
        let stdout_fd = out_end.as_ref().map_or(nowhere, AsFd::as_fd);
        let stderr_fd = if order.capture == Capture::Merged {
            stdout_fd
        } else {
            err_end.as_ref().map_or(nowhere, AsFd::as_fd)
        };
        let streams = Streams {
            stdin: in_end.as_ref().map_or(nowhere, AsFd::as_fd),
            stdout: stdout_fd,
            stderr: stderr_fd,
        };
        let (pid, end) = order.program.start(&streams)?;
        Ok(Self {
            pid,
            end,
            stdout: Relay::new(stdout, Vec::new(), order.max_output_bytes),
            stderr: Relay::new(stderr, Vec::new(), order.max_output_bytes),
            stdin,
            deadline: order
                .timeout
                .and_then(|timeout| Instant::now().checked_add(timeout)),
            timed_out: false,
        })
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn poll_entries(&self) -> [libc::pollfd; ENTRIES] {
        let entry = |fd: Option<BorrowedFd<'_>>, events| libc::pollfd {
            fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
            events,
            revents: 0,
        };
        [
            entry(Some(self.end.as_fd()), libc::POLLIN),
            entry(self.stdout.fd(), libc::POLLIN),
            entry(self.stderr.fd(), libc::POLLIN),
            entry(self.stdin.as_ref().map(Feed::fd), libc::POLLOUT),
        ]
    }

    /// Does what the entries call for. The outcome, when the process has ended.
    pub(super) fn attend(
        &mut self,
        entries: &[libc::pollfd],
        buffer: &mut Buffer,
    ) -> Option<Outcome> {
        let ready = |place: usize| entries[place].revents != 0;
        if ready(0) {
            if let Some(ended) = sys::reap_child(self.pid) {
                // Only what is there: whoever else holds the streams may write for ever.
                let _ = (self.stdout.drain(buffer), self.stderr.drain(buffer));
                return Some(self.outcome(Some(ended)));
            }
        }
        if ready(1) {
            self.stdout.pass_or_close(buffer);
        }
        if ready(2) {
            self.stderr.pass_or_close(buffer);
        }
        if ready(3) {
            self.stdin = self.stdin.take().and_then(Feed::go_on);
        }
        None
    }

    /// Kills it at its deadline. The outcome, when that did not help in time.
    pub(super) fn look_at_clock(&mut self, now: Instant) -> Option<Outcome> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        if self.timed_out {
            self.deadline = None;
            return Some(self.outcome(None));
        }
        kin::kill_with_descendants(self.pid);
        self.timed_out = true;
        self.deadline = now.checked_add(PATIENCE);
        None
    }

    fn outcome(&mut self, ended: Option<Ended>) -> Outcome {
        Outcome {
            ended,
            timed_out: self.timed_out,
            stdout_truncated: self.stdout.truncated(),
            stderr_truncated: self.stderr.truncated(),
            stdout: self.stdout.take_sink(),
            stderr: self.stderr.take_sink(),
        }
    }
}

/// Our end of a stream that is kept, and the command's.
fn stream(kept: bool) -> io::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if !kept {
        return Ok((None, None));
    }
    let (ours, theirs) = sys::pipe()?;
    Ok((Some(ours), Some(theirs)))
}

/// What the command has yet to read.
struct Feed {
    pipe: File,
    bytes: Vec<u8>,
    written: usize,
}

impl Feed {
    /// Puts as much into a new pipe as it holds: mostly all.
    fn of(bytes: Vec<u8>) -> io::Result<(Option<Self>, Option<OwnedFd>)> {
        if bytes.is_empty() {
            return Ok((None, None));
        }
        let (theirs, ours) = sys::pipe()?;
        sys::set_nonblocking(&ours)?;
        Ok((
            Self {
                pipe: ours.into(),
                bytes,
                written: 0,
            }
            .go_on(),
            Some(theirs),
        ))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// `None` closes the pipe: all is written, or nobody reads any more.
    fn go_on(mut self) -> Option<Self> {
        while self.written < self.bytes.len() {
            match self.pipe.write(&self.bytes[self.written..]) {
                Ok(size) => self.written += size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(self),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        None
    }
}
