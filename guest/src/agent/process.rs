//! A running command as a process: its end, its deadline, its death.
//!
//! ```text
//! running ──ends──────────────────► ended
//!    └──deadline, or cancelled──► killed ──ends─► ended
//!                                   └──patience─► given up: waited for without anybody asking
//! ```

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use super::kin;
use crate::command::{Program, SpawnError, Streams};
use crate::sys::{self, Ended};

/// A killed process is gone in microseconds, unless it hangs in the kernel; then it is answered for all the same.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Process {
    pid: libc::pid_t,
    /// Readable once the process has ended.
    end: OwnedFd,
    /// The time to kill it, and once that was done, the time to give up on it.
    deadline: Option<Instant>,
    killed: bool,
    timed_out: bool,
}

impl Process {
    pub(super) fn start(
        program: Program,
        streams: &Streams<'_>,
        timeout: Option<Duration>,
    ) -> Result<Self, SpawnError> {
        let (pid, end) = program.start(streams)?;
        Ok(Self {
            pid,
            end,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            killed: false,
            timed_out: false,
        })
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Ready when [`Self::reap`] has something to say.
    pub(super) fn poll_entry(&self) -> libc::pollfd {
        poll_entry(Some(self.end.as_fd().as_raw_fd()), libc::POLLIN)
    }

    pub(super) fn reap(&self) -> Option<Ended> {
        sys::reap_child(self.pid)
    }

    /// Kills it with its descendants, once. Not to be called of one that was waited for: its id may be another's.
    pub(super) fn kill(&mut self, now: Instant) {
        if !self.killed {
            kin::kill_with_descendants(self.pid);
            self.killed = true;
            self.deadline = now.checked_add(PATIENCE);
        }
    }

    /// Kills it at its deadline. True, once, when a killed one has not ended in time.
    pub(super) fn look_at_clock(&mut self, now: Instant) -> bool {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return false;
        }
        if self.killed {
            self.deadline = None;
            return true;
        }
        self.timed_out = true;
        self.kill(now);
        false
    }
}

/// Without a descriptor, one that `poll` passes over.
pub(super) fn poll_entry(fd: Option<libc::c_int>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd: fd.unwrap_or(-1),
        events,
        revents: 0,
    }
}
