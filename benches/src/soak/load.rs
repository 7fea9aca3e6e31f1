//! What goes on all the time: clients, an operator who rebuilds, and a vandal who kills hypervisors.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Soak;
use super::call::Ask;
use super::client::{Answered, Client};
use super::host;
use super::order::Order;

/// Clients at the same time: with two warm clones and two cores, often one more than can be served at once.
const CLIENTS: u64 = 3;
/// How often the operator rebuilds.
const REBUILD_INTERVAL: Duration = Duration::from_secs(60);
/// How long the load may take to end: the longest wait for a sandbox, and a command.
const END_DEADLINE: Duration = Duration::from_secs(120);

pub(super) struct Load {
    tasks: JoinSet<()>,
}

/// One who makes load.
struct Actor {
    client: Client,
    rng: StdRng,
    stopped: watch::Receiver<bool>,
}

impl Load {
    pub(super) fn start(soak: &Arc<Soak>, seed: u64, stopped: &watch::Receiver<bool>) -> Self {
        let mut tasks = JoinSet::new();
        let actor = |nth: u64| Actor {
            client: Client::new(soak),
            rng: StdRng::seed_from_u64(seed.wrapping_add(nth)),
            stopped: stopped.clone(),
        };
        for nth in 1..=CLIENTS {
            tasks.spawn(actor(nth).works(nth));
        }
        tasks.spawn(actor(CLIENTS + 1).operates());
        tasks.spawn(actor(CLIENTS + 2).destroys());
        Self { tasks }
    }

    /// Waits until everybody has given back what they hold.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let all = async {
            while self.tasks.join_next().await.transpose()?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(END_DEADLINE, all)
            .await
            .context("the load does not end")?
    }
}

impl Actor {
    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Waits; less when it is to stop.
    async fn pause(&mut self, least: Duration, most: Duration) {
        let pause = self.rng.random_range(least..most);
        // The sender lives as long as the soak.
        let _ = tokio::time::timeout(pause, self.stopped.wait_for(|stopped| *stopped)).await;
    }

    async fn works(mut self, nth: u64) {
        let mut job = 0;
        while !self.is_stopped() {
            job += 1;
            if let Err(error) = self.does(format!("{nth}-{job}")).await {
                self.client
                    .soak
                    .books
                    .fails(&format!("client {nth}, job {job}"), &error);
            }
            self.pause(Duration::from_millis(50), Duration::from_millis(400))
                .await;
        }
    }

    /// One job: a sandbox, commands in it, and it is given back.
    async fn does(&mut self, tag: String) -> anyhow::Result<()> {
        let order = Order::any(tag, &mut self.rng);
        let Some(held) = self.client.checkout(&order).await? else {
            return Ok(());
        };
        for _ in 0..self.rng.random_range(1..4) {
            self.client.prove(&held).await?;
            self.pause(Duration::from_millis(10), Duration::from_millis(500))
                .await;
        }
        if order.lapses {
            self.client.soak.books.count("leases left to run out");
            return Ok(());
        }
        if self.rng.random_bool(0.3) {
            let ttl_s = self.rng.random_range(200..400);
            self.client.renew(&held, ttl_s).await?;
        }
        self.client.release(&held).await
    }

    async fn operates(mut self) {
        let half = REBUILD_INTERVAL / 2;
        loop {
            self.pause(half / 2, half).await;
            if self.is_stopped() {
                return;
            }
            let what = if self.rng.random_bool(0.3) {
                "rollback"
            } else {
                "rebuild"
            };
            if let Err(error) = self.orders(what).await {
                self.client.soak.books.fails("the operator", &error);
            }
            self.pause(half, half + half / 2).await;
        }
    }

    async fn orders(&self, what: &'static str) -> anyhow::Result<()> {
        let ask = Ask::post(format!("/v1/templates/default/{what}"));
        let Answered::Yes(reply, _) = self.client.ask(&ask).await? else {
            return Ok(());
        };
        match reply.status {
            200 => self.client.soak.books.count("rollbacks"),
            202 => self.client.soak.books.count("rebuilds of the operator"),
            // One runs already, or there is nothing to go back to.
            409 => {}
            status => anyhow::bail!("{what}: {status} {}", reply.body),
        }
        Ok(())
    }

    async fn destroys(mut self) {
        loop {
            self.pause(Duration::from_secs(4), Duration::from_secs(12))
                .await;
            if self.is_stopped() {
                return;
            }
            if let Err(error) = self.destroys_one().await {
                self.client.soak.books.fails("the vandal", &error);
            }
        }
    }

    /// Kills the hypervisor of a ready or leased clone. The service may be away meanwhile.
    async fn destroys_one(&mut self) -> anyhow::Result<()> {
        let Answered::Yes(reply, _) = self.client.ask(&Ask::get("/v1/pools/default")).await? else {
            return Ok(());
        };
        let soak = Arc::clone(&self.client.soak);
        let _still = soak.gate.read().await;
        let clones = reply.body["clones"].as_array().cloned().unwrap_or_default();
        let whole = clones
            .iter()
            .filter(|c| c["state"] == "ready" || c["state"] == "leased");
        let ids: Vec<_> = whole.filter_map(|clone| clone["id"].as_str()).collect();
        let Some(id) = ids.choose(&mut self.rng) else {
            return Ok(());
        };
        let seen = host::processes(&soak.place.folder)?;
        // It may have ended since.
        if let Some(machine) = seen.machines.iter().find(|machine| machine.id == *id) {
            soak.books.hurts(id);
            kill(Pid::from_raw(machine.pid), Signal::SIGKILL)?;
            soak.books.count("hypervisors killed");
        }
        Ok(())
    }
}
