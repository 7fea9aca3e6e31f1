//! Waits for what happens outside of the service: with a deadline, and without taking a core from the machines that
//! work.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The deadline of everything that is waited for: generous, because the machine may be busy.
pub const LONG: Duration = Duration::from_secs(180);
/// The time between two looks. A look may walk /proc or ask the service: twenty a second take no core.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `is_so`, at most for `deadline`. An error of a look is not the end: it is told when the time is over.
///
/// `eventually("no machine is left", LONG, async || Ok(place.machines()?.is_empty())).await?`
pub async fn eventually(
    what: &str,
    deadline: Duration,
    mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let until = Instant::now() + deadline;
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let look = is_so().await;
        if matches!(look, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= until {
            look.with_context(|| format!("not within {deadline:?}: {what}"))?;
            anyhow::bail!("not within {deadline:?}: {what}");
        }
    }
}

/// A process that is watched, child of ours or not. Opened while the process lives.
pub struct Watched {
    pid: i32,
    pidfd: OwnedFd,
}

impl Watched {
    pub fn open(pid: i32) -> anyhow::Result<Self> {
        let of = Pid::from_raw(pid).with_context(|| format!("{pid} is no pid"))?;
        let pidfd = pidfd_open(of, PidfdFlags::empty())
            .with_context(|| format!("process {pid} is gone before its end was waited for"))?;
        Ok(Self { pid, pidfd })
    }

    /// Returns in the moment of its end, before a parent has waited for it.
    pub async fn ended(self) -> anyhow::Result<()> {
        let pid = self.pid;
        let has_ended = spawn_blocking(move || self.has_ended_within(LONG)).await??;
        anyhow::ensure!(has_ended, "not within {LONG:?}: the end of process {pid}");
        Ok(())
    }

    fn has_ended_within(&self, deadline: Duration) -> anyhow::Result<bool> {
        let deadline = Timespec::try_from(deadline)?;
        let mut of = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(poll(&mut of, Some(&deadline))? == 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end_and_says_what_it_was_for() {
    let mut looks = 0;
    let waited = eventually("the third look", LONG, async || {
        looks += 1;
        anyhow::ensure!(looks != 2, "a look that fails");
        Ok(looks == 3)
    });
    waited.await.expect("it came");
    let never = eventually("what never comes", LONG, async || Ok(false)).await;
    let text = never.expect_err("it did not come").to_string();
    assert_eq!(text, "not within 180s: what never comes");
    let broken = eventually("an answer", LONG, async || anyhow::bail!("refused")).await;
    let text = format!("{:#}", broken.expect_err("it did not come"));
    assert_eq!(text, "not within 180s: an answer: refused");
}

#[tokio::test]
async fn the_end_of_a_process_is_seen_before_it_is_waited_for() -> anyhow::Result<()> {
    let mut child = tokio::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let pid = i32::try_from(child.id().context("it runs")?)?;
    let watched = Watched::open(pid)?;
    assert!(!watched.has_ended_within(Duration::ZERO)?);
    drop(child.stdin.take());
    watched.ended().await?;
    assert!(child.try_wait()?.is_some_and(|status| status.success()));
    Ok(())
}
