//! The service that is soaked: started, killed, started again, stopped.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

use super::Soak;
use super::call::{Ask, call};
use super::upkeep::Upkeep;

/// How long a start may take: a first build on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(240);
/// How long the end of a killed or stopped service may take: its own graces are 33 s in all.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is asked.
const AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Service {
    soak: Arc<Soak>,
    child: Child,
    born: Instant,
    pub(super) upkeep: Upkeep,
}

impl Service {
    pub(super) fn start(soak: &Arc<Soak>) -> anyhow::Result<Self> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(soak.place.log())?;
        let child = soak
            .place
            .vmint("serve")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let pid = child.id().context("a process has a number")?;
        Ok(Self {
            soak: Arc::clone(soak),
            child,
            born: Instant::now(),
            upkeep: Upkeep::watch(pid),
        })
    }

    /// Fails when it has ended by itself.
    pub(super) fn lives(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the service has ended by itself: {status}"),
        }
    }

    /// Waits until it says that it is ready, and answers how long that took from its start.
    pub(super) async fn until_ready(&mut self) -> anyhow::Result<Duration> {
        let mut last = String::new();
        while self.born.elapsed() < READY_DEADLINE {
            self.lives()?;
            match call(&self.soak.place.socket(), &Ask::get("/readyz")).await {
                Ok(reply) if reply.status == 200 => {
                    let took = self.born.elapsed();
                    self.soak.books.is_up(took);
                    self.upkeep.begin();
                    return Ok(took);
                }
                Ok(reply) => last = reply.body.to_string(),
                Err(missed) => last = missed.to_string(),
            }
            tokio::time::sleep(AGAIN).await;
        }
        anyhow::bail!("not ready within {READY_DEADLINE:?}: {last}")
    }

    /// `kill -9`, after a delay that is kept to some microseconds.
    pub(super) async fn kill_after(&mut self, delay: Duration) -> anyhow::Result<()> {
        self.lives()?;
        let pid = self.pid()?;
        let soak = Arc::clone(&self.soak);
        // A timer of the runtime is a millisecond off, and late when somebody else is at work.
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(delay);
            soak.books.goes_down();
            kill(pid, Signal::SIGKILL)
        })
        .await??;
        self.upkeep.close(&self.soak.books)?;
        tokio::time::timeout(END_DEADLINE, self.child.wait()).await??;
        Ok(())
    }

    /// `kill -9` that nobody knows of: it looks as if it had ended by itself.
    pub(super) async fn dies(&mut self) -> anyhow::Result<()> {
        kill(self.pid()?, Signal::SIGKILL)?;
        tokio::time::timeout(END_DEADLINE, self.child.wait()).await??;
        Ok(())
    }

    /// Stops it as an operator would; answers how long it took.
    pub(super) async fn stop(mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.soak.books.goes_down();
        kill(self.pid()?, Signal::SIGTERM)?;
        let status = tokio::time::timeout(END_DEADLINE, self.child.wait())
            .await
            .context("it does not stop")??;
        anyhow::ensure!(status.success(), "the service ended with {status}");
        Ok(begun.elapsed())
    }

    pub(super) fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.child.id().context("the service has ended")?;
        Ok(Pid::from_raw(pid.try_into()?))
    }
}
