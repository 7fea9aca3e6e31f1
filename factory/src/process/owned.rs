//! A process that has one owner: a child of ours, or one that an earlier service started.
//!
//! Of an adopted process only its parent would be told how it ended, and its parent is gone: so that is unknown, and its
//! last words with it. It is signalled through a pidfd that was opened before its start time was compared, so it is
//! that very process or none.

use std::fmt;
use std::time::Duration;

use rustix::process::Signal;

use super::hypervisors::Listed;
use super::{Child, ExitKind, Stray};

/// A process. Dropped before it has ended, it is killed.
#[derive(Debug)]
pub(crate) enum OwnedProcess {
    /// We have started it.
    Child(Box<Child>),
    /// An earlier service has.
    Adopted(Adopted),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// As its parent was told.
    Told(ExitKind),
    /// Nobody was told.
    Untold,
}

impl OwnedProcess {
    /// Takes over a hypervisor that an earlier service has started. `may_connect`: whether its domain lets it open TCP
    /// connections.
    pub(crate) fn adopt(stray: Stray, may_connect: bool) -> Self {
        let listed = Some(Listed::enter(stray.stamp(), may_connect));
        let stray = Some(stray);
        Self::Adopted(Adopted { stray, listed })
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Safe: a later call goes on waiting.
    pub(crate) async fn wait(&mut self) -> EndKind {
        match self {
            Self::Child(child) => EndKind::Told(child.wait().await),
            Self::Adopted(adopted) => {
                adopted.wait().await;
                EndKind::Untold
            }
        }
    }

    /// Asks it to end, and after `grace` kills it; returns when it is gone.
    ///
    /// # Cancel safety
    /// A dropped call leaves a process that was asked to end; dropping this value kills it.
    pub(crate) async fn end(&mut self, grace: Duration) -> EndKind {
        match self {
            Self::Child(child) => EndKind::Told(child.end(grace).await),
            Self::Adopted(adopted) => {
                adopted.signal(Signal::TERM);
                if tokio::time::timeout(grace, adopted.wait()).await.is_err() {
                    adopted.signal(Signal::KILL);
                    adopted.wait().await;
                }
                EndKind::Untold
            }
        }
    }

    /// Kills it; returns when it is gone.
    ///
    /// # Cancel safety
    /// As [`OwnedProcess::end`].
    pub(crate) async fn kill(&mut self) -> EndKind {
        match self {
            Self::Child(child) => EndKind::Told(child.kill().await),
            Self::Adopted(adopted) => {
                adopted.signal(Signal::KILL);
                adopted.wait().await;
                EndKind::Untold
            }
        }
    }

    /// Its last words.
    pub(crate) fn stderr_text(&self) -> String {
        match self {
            Self::Child(child) => child.stderr().text(),
            Self::Adopted(_) => String::new(),
        }
    }

    /// Lets go of it: it goes on without us.
    pub(crate) fn leave(self) {
        match self {
            Self::Child(child) => child.leave(),
            Self::Adopted(mut adopted) => {
                adopted.stray = None;
                if let Some(listed) = adopted.listed.take() {
                    listed.stay();
                }
            }
        }
    }
}

impl fmt::Display for EndKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(exit) => exit.fmt(f),
            Self::Untold => {
                f.write_str("ended; how is not known, because an earlier service had started it")
            }
        }
    }
}

/// The process of an earlier service. Dropped before it has ended or was let go of, it is killed.
#[derive(Debug)]
pub(crate) struct Adopted {
    stray: Option<Stray>,
    listed: Option<Listed>,
}

impl Adopted {
    async fn wait(&self) {
        if let Some(stray) = &self.stray {
            stray.wait().await;
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(stray) = &self.stray else { return };
        if let Err(error) = stray.signal(signal) {
            let pid = stray.stamp().pid;
            tracing::warn!(pid, ?signal, %error, "an adopted process cannot be signalled");
        }
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        // One that has ended already is not there to be hit: the pidfd names it and nobody else.
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessStamp;

    /// A child, and what keeps it from ending by itself: waiting for a child closes its standard input.
    type Parent = (tokio::process::Child, Option<tokio::process::ChildStdin>);

    /// Stands for a process of an earlier service.
    fn sleeper(script: &str) -> anyhow::Result<(Stray, Parent)> {
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| anyhow::anyhow!("no pid"))?;
        let stray = Stray::hold(ProcessStamp::of(pid)?)?;
        let stdin = child.stdin.take();
        let stray = stray.ok_or_else(|| anyhow::anyhow!("it is gone"))?;
        Ok((stray, (child, stdin)))
    }

    #[tokio::test]
    async fn an_adopted_process_is_watched_asked_and_killed() -> anyhow::Result<()> {
        let (stray, (mut parent, _stdin)) = sleeper("read line")?;
        let mut process = OwnedProcess::adopt(stray, false);
        assert_eq!(process.end(Duration::from_secs(60)).await, EndKind::Untold);
        parent.wait().await?;

        let (stray, (mut parent, _stdin)) = sleeper("trap '' TERM; read line")?;
        let mut process = OwnedProcess::adopt(stray, false);
        process.end(Duration::from_millis(50)).await;
        parent.wait().await?;
        assert!(
            process.wait().await == EndKind::Untold,
            "any number of times"
        );
        Ok(())
    }

    #[tokio::test]
    async fn one_that_is_killed_is_not_asked_before() -> anyhow::Result<()> {
        let script =
            "trap 'echo asked >&2; exit' TERM; echo ready >&2; while :; do read line; done";
        let plan = crate::process::LaunchPlan {
            program: "/bin/sh".into(),
            args: ["-c", script].map(Into::into).into(),
            ..Default::default()
        };
        let child = Child::spawn(plan)?;
        let is_ready = || child.stderr().text().contains("ready");
        crate::waiting::until("it is ready", is_ready).await;
        let mut process = OwnedProcess::Child(Box::new(child));
        let killed = ExitKind::Signal(nix::sys::signal::Signal::SIGKILL as i32);
        assert_eq!(process.kill().await, EndKind::Told(killed));
        assert_eq!(process.stderr_text(), "ready");

        let (stray, (mut parent, _stdin)) = sleeper("trap '' TERM; read line")?;
        assert_eq!(
            OwnedProcess::adopt(stray, false).kill().await,
            EndKind::Untold
        );
        parent.wait().await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_dropped_one_is_killed_and_one_that_was_left_goes_on() -> anyhow::Result<()> {
        let (stray, (mut parent, _stdin)) = sleeper("read line")?;
        drop(OwnedProcess::adopt(stray, false));
        parent.wait().await?;

        let (stray, (mut parent, _stdin)) = sleeper("read line")?;
        let stamp = stray.stamp();
        OwnedProcess::adopt(stray, false).leave();
        assert!(stamp.is_alive() && parent.try_wait()?.is_none());
        parent.kill().await?;
        Ok(())
    }
}
