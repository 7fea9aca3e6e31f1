//! Clients that check out, run one command and release, at all times.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::lab::DEADLINE;
use crate::service::Connection;
use crate::stats::Sample;

/// Clients without a pause: as many as there are clones made at the same time.
const CLIENTS: usize = 2;
/// How long a checkout waits at most, milliseconds.
const WAIT_MS: u64 = 60_000;

/// When checkouts come.
#[derive(Clone, Copy)]
pub(super) enum Rhythm {
    /// At a constant rate, whatever becomes of those before.
    Every(Duration),
    /// As soon as the one before was released.
    WithoutPause,
}

impl fmt::Display for Rhythm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(interval) => write!(f, "one every {} ms", interval.as_millis()),
            Self::WithoutPause => write!(f, "{CLIENTS} clients without a pause"),
        }
    }
}

/// What a checkout counts for, by the moment in which it came.
#[derive(Clone, Copy)]
pub(super) enum Arm {
    Before,
    During,
    Neither,
}

/// What the clients have seen.
pub(super) struct Seen {
    arm: Arm,
    pub(super) before: Sample,
    pub(super) during: Sample,
    pub(super) failures: Vec<String>,
}

/// The clients.
pub(super) struct Load {
    clients: Clients,
    stop: watch::Sender<bool>,
    all: JoinSet<anyhow::Result<()>>,
}

#[derive(Clone)]
struct Clients {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Load {
    pub(super) fn start(rhythm: Rhythm, port: u16) -> anyhow::Result<Self> {
        let seen = Seen {
            arm: Arm::Neither,
            before: Sample::new()?,
            during: Sample::new()?,
            failures: Vec::new(),
        };
        let clients = Clients {
            port,
            seen: Arc::new(Mutex::new(seen)),
            idle: Arc::default(),
        };
        let (stop, stopped) = watch::channel(false);
        let mut all = JoinSet::new();
        match rhythm {
            Rhythm::Every(interval) => {
                all.spawn(clients.clone().come(interval, stopped));
            }
            Rhythm::WithoutPause => {
                for _ in 0..CLIENTS {
                    all.spawn(clients.clone().come_again(stopped.clone()));
                }
            }
        }
        Ok(Self { clients, stop, all })
    }

    /// What comes from now on counts for another arm.
    pub(super) fn enter(&self, arm: Arm) {
        lock(&self.clients.seen).arm = arm;
    }

    /// Lets the last of them finish, and answers what they have seen.
    pub(super) async fn end(mut self) -> anyhow::Result<Seen> {
        self.stop.send_replace(true);
        let all = async {
            while let Some(client) = self.all.join_next().await {
                client??;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(DEADLINE, all)
            .await
            .context("the load does not end")??;
        let seen = Arc::into_inner(self.clients.seen).context("a client is left")?;
        Ok(seen.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clients {
    /// A checkout with each tick. One that is late is counted from its tick on.
    async fn come(
        self,
        interval: Duration,
        mut stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(interval);
        let mut jobs = JoinSet::new();
        loop {
            let tick = tokio::select! {
                tick = ticks.tick() => tick,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            jobs.spawn(self.clone().job(tick.into_std()));
            while let Some(done) = jobs.try_join_next() {
                done??;
            }
        }
        while let Some(done) = jobs.join_next().await {
            done??;
        }
        Ok(())
    }

    async fn come_again(self, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        while !*stopped.borrow() {
            self.clone().job(Instant::now()).await?;
        }
        Ok(())
    }

    /// One job, and what is noted of it.
    async fn job(self, asked: Instant) -> anyhow::Result<()> {
        let arm = lock(&self.seen).arm;
        match self.works(asked).await {
            Ok(wait) => match arm {
                Arm::Before => lock(&self.seen).before.add(wait),
                Arm::During => lock(&self.seen).during.add(wait),
                Arm::Neither => Ok(()),
            },
            Err(failure) => {
                lock(&self.seen).failures.push(format!("{failure:#}"));
                Ok(())
            }
        }
    }

    /// A sandbox, one command in it, and it is given back. Answers how long the checkout took.
    async fn works(&self, asked: Instant) -> anyhow::Result<Duration> {
        let kept = lock(&self.idle).pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(self.port).await?,
        };
        let body = json!({"wait_ms": WAIT_MS});
        let (status, sandbox) = connection
            .send(Method::POST, "/v1/sandboxes", Some(&body))
            .await?;
        let wait = asked.elapsed();
        anyhow::ensure!(status == StatusCode::CREATED, "{status}: {sandbox}");
        let id = sandbox["id"].as_str().context("a sandbox has an id")?;
        connection.exec(id, &["/bin/true"]).await?;
        connection.release(id).await?;
        lock(&self.idle).push(connection);
        Ok(wait)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
