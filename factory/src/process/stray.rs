//! Processes that are no children of ours: those that an earlier service left behind.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::aside::aside;

/// Names one process for ever: the kernel gives its number out again, but not with the same start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessStamp {
    pub(crate) pid: u32,
    /// Clock ticks from the host's boot to the process's start: field 22 of `/proc/<pid>/stat`.
    pub(crate) start_ticks: u64,
}

impl ProcessStamp {
    /// The stamp of a process that exists.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).map_err(io::Error::other)?;
        let stat = procfs::process::Process::new(number)
            .and_then(|p| p.stat())
            .map_err(io::Error::other)?;
        Ok(Self {
            pid,
            start_ticks: stat.starttime,
        })
    }

    /// Whether this very process still exists.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }
}

/// Kills a process that is not our child, if it is still the one that was recorded, and waits until it is gone.
/// Answers whether there was one.
///
/// # Errors
/// When it may not be signalled, or is not gone after `deadline`.
pub(crate) async fn end_stray(stamp: ProcessStamp, deadline: Duration) -> io::Result<bool> {
    let Some(pid) = i32::try_from(stamp.pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return Ok(false);
    };
    let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // From here the handle names one process; only now its stamp tells whether it is the right one.
    if !stamp.is_alive() {
        return Ok(false);
    }
    match pidfd_send_signal(&handle, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    let is_gone = aside(move || wait_for_end(&handle, deadline)).await?;
    if is_gone {
        return Ok(true);
    }
    let why = format!(
        "process {} is not gone {} after SIGKILL",
        stamp.pid,
        crate::text::duration(deadline)
    );
    Err(io::Error::new(io::ErrorKind::TimedOut, why))
}

/// A pidfd becomes readable when its process has ended. It blocks.
fn wait_for_end(handle: &OwnedFd, deadline: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(handle, PollFlags::IN)];
    let timeout = Timespec::try_from(deadline).map_err(io::Error::other)?;
    Ok(poll(&mut fds, Some(&timeout))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stray_is_ended_only_when_its_start_time_agrees() -> anyhow::Result<()> {
        let mut child = tokio::process::Command::new("sleep")
            .arg("600")
            .kill_on_drop(true)
            .spawn()?;
        let stamp = ProcessStamp::of(child.id().ok_or_else(|| anyhow::anyhow!("no pid"))?)?;
        let other = ProcessStamp {
            start_ticks: stamp.start_ticks + 1,
            ..stamp
        };
        assert!(
            !end_stray(other, Duration::from_secs(5)).await?,
            "another process with the same number"
        );
        assert!(stamp.is_alive());
        assert!(end_stray(stamp, Duration::from_secs(5)).await?);
        child.wait().await?;
        assert!(!end_stray(stamp, Duration::from_secs(5)).await?);
        Ok(())
    }
}
