//! Whether a process still runs, answered at once.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

/// An open handle to a process: it names that process for ever.
#[derive(Debug)]
pub(crate) struct ExitWatch(OwnedFd);

impl ExitWatch {
    /// Watches a child that has not been waited for yet, so that the number is still its own.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).map_err(io::Error::other)?;
        let pid =
            rustix::process::Pid::from_raw(number).ok_or_else(|| io::Error::other("pid 0"))?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Whether the process has ended. One system call, a microsecond; nobody needs to have been told yet.
    pub(crate) fn has_exited(&self) -> bool {
        const AT_ONCE: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        // A pidfd becomes readable when its process has ended.
        poll(&mut fds, Some(&AT_ONCE)).is_ok_and(|ready| ready > 0)
    }
}
