//! Clients of the default template without a pause.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::service::{Place, call, id};

/// One checkout that was answered.
#[derive(Clone, Debug)]
pub struct Checkout {
    pub asked: Instant,
    pub wait: Duration,
    pub generation: Value,
}

/// Clients that check out, run a command and release, over and over. Nothing of it may fail.
pub struct Load {
    seen: Arc<Mutex<Vec<Checkout>>>,
    stop: CancellationToken,
    clients: JoinSet<anyhow::Result<()>>,
}

impl Load {
    pub fn start(place: &Place, clients: usize) -> Self {
        let mut load = Self {
            seen: Arc::default(),
            stop: CancellationToken::new(),
            clients: JoinSet::new(),
        };
        for _ in 0..clients {
            let socket = place.run_dir().join("api.sock");
            let (seen, stop) = (Arc::clone(&load.seen), load.stop.clone());
            load.clients.spawn(client(socket, seen, stop));
        }
        load
    }

    /// What was answered so far.
    pub fn seen(&self) -> Vec<Checkout> {
        let seen = self.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets them finish, and answers what they have seen.
    pub async fn stop(mut self) -> anyhow::Result<Vec<Checkout>> {
        self.stop.cancel();
        while let Some(client) = self.clients.join_next().await {
            client??;
        }
        Ok(self.seen())
    }
}

async fn client(
    socket: PathBuf,
    seen: Arc<Mutex<Vec<Checkout>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        let checkout = job(&socket).await?;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(checkout);
    }
    Ok(())
}

async fn job(socket: &Path) -> anyhow::Result<Checkout> {
    let asked = Instant::now();
    let body = json!({"wait_ms": 60_000});
    let (status, sandbox) = call(socket, Method::POST, "/v1/sandboxes", Some(body)).await?;
    anyhow::ensure!(status == 201, "{status}: {sandbox}");
    let wait = asked.elapsed();
    let path = format!("/v1/sandboxes/{}", id(&sandbox));
    let argv = json!({"argv": ["true"]});
    let exec = call(socket, Method::POST, &format!("{path}/exec"), Some(argv)).await?;
    anyhow::ensure!(exec.0 == 200 && exec.1["exit_code"] == 0, "{exec:?}");
    let (status, problem) = call(socket, Method::DELETE, &path, None).await?;
    anyhow::ensure!(status == 204, "{status}: {problem}");
    let generation = sandbox["generation"].clone();
    Ok(Checkout {
        asked,
        wait,
        generation,
    })
}
