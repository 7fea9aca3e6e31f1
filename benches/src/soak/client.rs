//! A client of the node, as it should be: it asks again when nobody answered, by the same key where it has one, and looks
//! for its sandbox by what it wrote on it where it has none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Soak;
use super::books::Held;
use super::call::{Ask, Missed, Reply, call};
use super::order::Order;

/// How long a client waits before it asks again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a service may be away, its restart and the audit behind it included.
const AWAY_MAX: Duration = Duration::from_secs(240);
/// How long a command may take in a guest: far longer than on any busy machine.
const EXEC_MS: u64 = 30_000;

pub(super) struct Client {
    pub(super) soak: Arc<Soak>,
}

/// How a request went.
pub(super) enum Answered {
    /// There is an answer, after so long.
    Yes(Reply, Duration),
    /// The service was killed meanwhile.
    Cut,
}

impl Client {
    pub(super) fn new(soak: &Arc<Soak>) -> Self {
        Self {
            soak: Arc::clone(soak),
        }
    }

    /// Asks as soon as somebody listens. No answer is an error while nobody was killed.
    pub(super) async fn ask(&self, ask: &Ask) -> anyhow::Result<Answered> {
        let deadline = Instant::now() + AWAY_MAX;
        loop {
            let still = self.soak.gate.read().await;
            let (era, begun) = (self.soak.books.era(), Instant::now());
            let missed = match call(&self.soak.place.socket(), ask).await {
                Ok(reply) => return Ok(Answered::Yes(reply, begun.elapsed())),
                Err(missed) => missed,
            };
            drop(still);
            let is_known = self.soak.books.may_miss(era) && Instant::now() < deadline;
            match missed {
                Missed::Down(_) if is_known => {
                    self.soak.books.count("requests that nobody listened to");
                    tokio::time::sleep(AGAIN).await;
                }
                Missed::CutOff(_) if is_known => return Ok(Answered::Cut),
                missed => anyhow::bail!("{} {}: {missed}", ask.method, ask.path),
            }
        }
    }

    /// The same, again and again where it was cut off. Says whether it was.
    async fn insist(&self, ask: &Ask) -> anyhow::Result<(Reply, Duration, bool)> {
        let mut was_cut = false;
        loop {
            match self.ask(ask).await? {
                Answered::Yes(reply, took) => return Ok((reply, took, was_cut)),
                Answered::Cut => was_cut = true,
            }
        }
    }

    /// A sandbox, or a documented no.
    pub(super) async fn checkout(&self, order: &Order) -> anyhow::Result<Option<Held>> {
        let (reply, took, was_cut) = if order.key.is_some() {
            self.insist(&order.ask()).await?
        } else {
            match self.ask(&order.ask()).await? {
                Answered::Yes(reply, took) => (reply, took, false),
                Answered::Cut => return self.find(order).await,
            }
        };
        self.soak.books.outcome(&reply, took);
        match (reply.status, reply.code()) {
            (201, _) => {
                let held = Held::of(&order.tag, &reply.body)?;
                self.soak.books.takes(&held)?;
                if was_cut {
                    self.soak.books.count("checkouts cut off, and done once");
                    self.is_the_only_one(order, &held).await?;
                }
                Ok(Some(held))
            }
            (429, "queue_full")
            | (503, "pool_empty" | "draining" | "shutting_down" | "template_unavailable") => {
                Ok(None)
            }
            _ => anyhow::bail!("a checkout failed: {} {}", reply.status, reply.body),
        }
    }

    async fn is_the_only_one(&self, order: &Order, held: &Held) -> anyhow::Result<()> {
        let found = self.tagged(order).await?;
        let is_it = found.len() == 1 && found[0]["id"] == held.id.as_str();
        let is_gone = found.is_empty() && self.soak.books.may_be_gone(held);
        anyhow::ensure!(
            is_it || is_gone,
            "one checkout, not one sandbox: {held:?}, {found:?}"
        );
        Ok(())
    }

    /// What a checkout without a key has made before it was cut off.
    async fn find(&self, order: &Order) -> anyhow::Result<Option<Held>> {
        let found = self.tagged(order).await?;
        anyhow::ensure!(found.len() < 2, "one checkout, two sandboxes: {found:?}");
        let Some(sandbox) = found.first() else {
            self.soak.books.count("checkouts cut off, and not done");
            return Ok(None);
        };
        self.soak.books.count("checkouts cut off, and found");
        let held = Held::of(&order.tag, sandbox)?;
        self.soak.books.takes(&held)?;
        Ok(Some(held))
    }

    async fn tagged(&self, order: &Order) -> anyhow::Result<Vec<Value>> {
        let (reply, _, _) = self.insist(&order.look()).await?;
        anyhow::ensure!(reply.status == 200, "{}: {}", reply.status, reply.body);
        Ok(reply.body["sandboxes"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// Shows that the sandbox is the one that was promised, and like no other.
    pub(super) async fn prove(&self, held: &Held) -> anyhow::Result<()> {
        let (reply, took, _) = self.insist(&proof(held)).await?;
        check(&self.soak, held, &reply, took)
    }

    pub(super) async fn renew(&self, held: &Held, ttl_s: u64) -> anyhow::Result<()> {
        let ask =
            Ask::post(format!("/v1/sandboxes/{}/renew", held.id)).body(json!({"ttl_s": ttl_s}));
        let (reply, _, _) = self.insist(&ask).await?;
        match (reply.status, reply.body["expires_at"].as_str()) {
            (200, Some(at)) => self.soak.books.renewed(&held.id, at.parse::<Timestamp>()?),
            (404, _) if self.soak.books.may_be_gone(held) => {}
            _ => anyhow::bail!("renew of {held:?}: {} {}", reply.status, reply.body),
        }
        self.soak.books.count("renewals");
        Ok(())
    }

    pub(super) async fn release(&self, held: &Held) -> anyhow::Result<()> {
        let may_be_gone = self.soak.books.may_be_gone(held);
        self.soak.books.lets_go(&held.id);
        let ask = Ask::delete(format!("/v1/sandboxes/{}", held.id));
        let (reply, _, was_cut) = self.insist(&ask).await?;
        let is_gone =
            reply.status == 404 && (was_cut || may_be_gone || self.soak.books.may_be_gone(held));
        anyhow::ensure!(
            reply.status == 204 || is_gone,
            "release of {held:?}: {} {}",
            reply.status,
            reply.body
        );
        self.soak.books.count("releases");
        Ok(())
    }
}

/// A command that shows who the sandbox is, and random numbers of its kernel.
pub(super) fn proof(held: &Held) -> Ask {
    let script = "head -c 32 /dev/urandom | sha256sum; cat /etc/machine-id; hostname";
    Ask::post(format!("/v1/sandboxes/{}/exec", held.id))
        .body(json!({"argv": ["sh", "-c", script], "timeout_ms": EXEC_MS}))
}

/// Looks at what it said.
pub(super) fn check(soak: &Soak, held: &Held, reply: &Reply, took: Duration) -> anyhow::Result<()> {
    let stdout = reply.body["stdout"].as_str().unwrap_or_default();
    let words: Vec<_> = stdout.lines().collect();
    match (reply.status, words.as_slice()) {
        (200, [random, machine_id, hostname]) if reply.body["exit_code"] == 0 => {
            soak.books.pages().execs.push(took);
            anyhow::ensure!(
                *machine_id == held.machine_id && *hostname == held.hostname,
                "{held:?} says that it is {machine_id} {hostname}"
            );
            soak.books.random(held, random)
        }
        (404 | 502, _) if soak.books.may_be_gone(held) => Ok(()),
        _ => anyhow::bail!("exec in {held:?}: {} {}", reply.status, reply.body),
    }
}
