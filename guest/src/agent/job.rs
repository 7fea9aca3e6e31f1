//! One command that is answered at its end: its process, and what it has written.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::process::{Process, poll_entry};
use crate::command::{Buffer, Program, Relay, SpawnError, Streams};
use crate::sys::{self, Ended};

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

impl Outcome {
    pub(super) fn kept_bytes(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }
}

pub(super) struct Job {
    process: Process,
    stdout: Relay<Vec<u8>>,
    stderr: Relay<Vec<u8>>,
    stdin: Option<Feed>,
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
        Ok(Self {
            process: Process::start(order.program, &streams, order.timeout)?,
            stdout: Relay::new(stdout, Vec::new(), order.max_output_bytes),
            stderr: Relay::new(stderr, Vec::new(), order.max_output_bytes),
            stdin,
        })
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        self.process.pid()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.process.deadline()
    }

    /// Bytes that are kept until it has ended.
    pub(super) fn kept_bytes(&self) -> usize {
        self.stdout.sink().len() + self.stderr.sink().len()
    }

    /// Kills it; its end is told as any other.
    pub(super) fn cancel(&mut self, now: Instant) {
        self.process.kill(now);
    }

    pub(super) fn poll_entries(&self) -> [libc::pollfd; ENTRIES] {
        let entry =
            |fd: Option<BorrowedFd<'_>>, events| poll_entry(fd.map(|fd| fd.as_raw_fd()), events);
        [
            self.process.poll_entry(),
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
            if let Some(ended) = self.process.reap() {
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
        self.process.look_at_clock(now).then(|| self.outcome(None))
    }

    fn outcome(&mut self, ended: Option<Ended>) -> Outcome {
        Outcome {
            ended,
            timed_out: self.process.timed_out(),
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
