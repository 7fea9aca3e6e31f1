//! Processes that are no children of ours: those that an earlier service left behind.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::aside::aside;
use crate::sys;

/// How often a process is looked at that cannot be watched.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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

    /// Reads what [`std::fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (pid, start) = (words.next()?, words.next()?);
        Some(Self {
            pid: pid.parse().ok()?,
            start_ticks: start.parse().ok()?,
        })
    }

    /// Whether this very process still exists.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }
}

impl std::fmt::Display for ProcessStamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.start_ticks)
    }
}

/// The host's boot, by its random name: a start time says nothing in another boot.
pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        text.unwrap_or_default().trim().to_owned()
    })
}

/// The program that a process runs, as the kernel names it: without the note that its file is gone, which an upgrade
/// leaves behind it.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub(crate) fn program_of(pid: u32) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    const GONE: &[u8] = b" (deleted)";
    let link = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    let bytes = link.as_os_str().as_bytes();
    let path = bytes.strip_suffix(GONE).unwrap_or(bytes);
    Ok(std::ffi::OsStr::from_bytes(path).into())
}

/// A process that is no child of ours, held so that its number cannot become another's.
#[derive(Debug)]
pub(crate) struct Stray {
    stamp: ProcessStamp,
    /// A pidfd.
    handle: Arc<OwnedFd>,
}

impl Stray {
    /// Takes hold of a process, if it is still the one that was recorded.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn hold(stamp: ProcessStamp) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(stamp.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        else {
            return Ok(None);
        };
        let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(handle) => Arc::new(handle),
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // From here the handle names one process; only now its stamp tells whether it is the right one.
        Ok(stamp.is_alive().then_some(Self { stamp, handle }))
    }

    pub(crate) fn stamp(&self) -> ProcessStamp {
        self.stamp
    }

    /// Waits for its end; how it ended only its parent is told. It blocks. Answers whether it has ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn wait_blocking(&self, deadline: Duration) -> io::Result<bool> {
        wait_for_end(&self.handle, deadline)
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn wait(&self) {
        // A pidfd is readable from the end of its process on, to epoll as well.
        match sys::watch_readable(Arc::clone(&self.handle)) {
            Ok(watched) => drop(watched.readable().await),
            Err(error) => {
                tracing::warn!(pid = self.stamp.pid, %error, "a process cannot be watched; looking now and then");
                while self.stamp.is_alive() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Signals it. One that has ended is no error.
    ///
    /// # Errors
    /// When it may not be signalled.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Kills a process that is not our child, if it is still the one that was recorded, and waits until it is gone.
/// Answers whether there was one.
///
/// # Errors
/// When it may not be signalled, or is not gone after `deadline`.
pub(crate) async fn end_stray(stamp: ProcessStamp, deadline: Duration) -> io::Result<bool> {
    let Some(stray) = Stray::hold(stamp)? else {
        return Ok(false);
    };
    stray.signal(Signal::KILL)?;
    let is_gone = aside(move || stray.wait_blocking(deadline)).await?;
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
    let begun = Instant::now();
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(handle, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            // A signal has cut the wait short, which says nothing: the rest of it is waited for.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
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

    /// `poll` is cut short by every signal that has a handler, and is never begun again by the kernel.
    #[tokio::test]
    async fn a_signal_does_not_cut_a_wait_short() -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let kind = SignalKind::user_defined2();
        let _handled = signal(kind)?;
        let mut child = tokio::process::Command::new("sleep")
            .arg("600")
            .kill_on_drop(true)
            .spawn()?;
        let stamp = ProcessStamp::of(child.id().ok_or_else(|| anyhow::anyhow!("no pid"))?)?;
        let stray = Stray::hold(stamp)?.ok_or_else(|| anyhow::anyhow!("it is gone"))?;
        let waiting = std::thread::spawn(move || stray.wait_blocking(Duration::from_secs(60)));
        for _ in 0..1000 {
            sys::signal_thread(&waiting, kind.as_raw_value());
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished(), "a signal ended the wait");
        child.kill().await?;
        let ended = waiting
            .join()
            .map_err(|_| anyhow::anyhow!("it panicked"))??;
        assert!(ended, "it waited until the end");
        Ok(())
    }
}
