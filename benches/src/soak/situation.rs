//! Moments in a service's work at which it is killed, and how each is brought about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::task::JoinHandle;

use super::Soak;
use super::books::Held;
use super::call::{Ask, call};
use super::client::Client;
use super::order::Order;
use super::view::get;

/// Shortest delay between what brings a situation about and the kill.
const DELAY_LEAST: Duration = Duration::from_micros(50);
/// How long a step of a build, or a roll, may be waited for.
const STEP_DEADLINE: Duration = Duration::from_secs(120);
/// How often it is looked: steps are as short as some milliseconds.
const AGAIN: Duration = Duration::from_millis(3);
/// The steps of a build.
const STEPS: [&str; 7] = [
    "reserving",
    "booting",
    "ready",
    "warming",
    "saving",
    "verifying",
    "publishing",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Situation {
    Build,
    Clone,
    Checkout,
    Release,
    Roll,
}

impl Situation {
    pub(super) const ALL: [Self; 5] = [
        Self::Build,
        Self::Clone,
        Self::Checkout,
        Self::Release,
        Self::Roll,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Clone => "clone",
            Self::Checkout => "checkout",
            Self::Release => "release",
            Self::Roll => "roll",
        }
    }
}

/// A situation that has been brought about.
pub(super) struct Provoked {
    /// Since when the delay counts, in words.
    pub(super) since: String,
    /// How long after it the kill comes.
    pub(super) delay: Duration,
    /// What is going on, to be waited for when the service is there again.
    pub(super) pending: Pending,
}

pub(super) enum Pending {
    Nothing,
    /// A checkout that is to give one sandbox.
    Checkout(JoinHandle<anyhow::Result<Option<Held>>>),
    Release(JoinHandle<anyhow::Result<()>>, Held),
    /// A sandbox that has nothing to do with the kill.
    Held(Held),
}

/// Brings a situation about. What it needs is done before the clock starts.
pub(super) async fn provoke(
    soak: &Arc<Soak>,
    situation: Situation,
    tag: String,
    rng: &mut StdRng,
) -> anyhow::Result<Provoked> {
    let client = Client::new(soak);
    let order = Order::bound(tag);
    match situation {
        Situation::Build => build(soak, rng).await,
        Situation::Roll => roll(soak, rng).await,
        Situation::Checkout => Ok(Provoked {
            since: "the request".to_owned(),
            delay: up_to(Duration::from_millis(60), rng),
            pending: Pending::Checkout(tokio::spawn(async move { client.checkout(&order).await })),
        }),
        Situation::Clone => {
            let held = sandbox(&client, &order).await?;
            Ok(Provoked {
                since: "the checkout that made room".to_owned(),
                delay: up_to(Duration::from_millis(900), rng),
                pending: Pending::Held(held),
            })
        }
        Situation::Release => {
            let held = sandbox(&client, &order).await?;
            client.prove(&held).await?;
            let released = held.clone();
            Ok(Provoked {
                since: "the request".to_owned(),
                delay: up_to(Duration::from_millis(100), rng),
                pending: Pending::Release(
                    tokio::spawn(async move { client.release(&released).await }),
                    held,
                ),
            })
        }
    }
}

/// Looks at what was going on, now that the service is there again.
pub(super) async fn settle(soak: &Arc<Soak>, pending: Pending) -> anyhow::Result<()> {
    let client = Client::new(soak);
    let held = match pending {
        Pending::Nothing => return Ok(()),
        Pending::Held(held) => held,
        Pending::Release(task, held) => {
            task.await??;
            let path = format!("/v1/sandboxes/{}", held.id);
            let reply = call(&soak.place.socket(), &Ask::get(path)).await?;
            anyhow::ensure!(reply.status == 404, "released, and there: {}", reply.body);
            return Ok(());
        }
        Pending::Checkout(task) => match task.await?? {
            Some(held) => held,
            None => return Ok(()),
        },
    };
    client.prove(&held).await?;
    client.release(&held).await
}

async fn sandbox(client: &Client, order: &Order) -> anyhow::Result<Held> {
    let held = client.checkout(order).await?;
    held.context("a checkout that waits 30 s came to nothing")
}

/// Half of the kills come in a step, half at any moment of the build.
async fn build(soak: &Arc<Soak>, rng: &mut StdRng) -> anyhow::Result<Provoked> {
    let build = rebuild(soak).await?;
    if rng.random_bool(0.5) {
        let typical = soak
            .books
            .pages()
            .starts
            .first()
            .copied()
            .unwrap_or_default();
        return Ok(Provoked {
            since: "the request".to_owned(),
            delay: typical.mul_f64(rng.random_range(0.0..0.9)),
            pending: Pending::Nothing,
        });
    }
    let wanted = rng.random_range(0..STEPS.len());
    let socket = soak.place.socket();
    let path = format!("/v1/builds/{build}");
    let seen = until("a step", async || {
        let build = get(&socket, &path).await?;
        let step = build["step"].as_str().unwrap_or_default().to_owned();
        let reached = STEPS.iter().position(|known| *known == step);
        let is_there =
            reached.is_some_and(|reached| reached >= wanted) || build["state"] != "running";
        Ok(is_there.then_some(step))
    });
    Ok(Provoked {
        since: format!("the step {} was seen", seen.await?),
        delay: up_to(Duration::from_millis(300), rng),
        pending: Pending::Nothing,
    })
}

async fn roll(soak: &Arc<Soak>, rng: &mut StdRng) -> anyhow::Result<Provoked> {
    let socket = soak.place.socket();
    let before = get(&socket, "/v1/templates/default").await?["current"].clone();
    rebuild(soak).await?;
    let seen = until("a roll", async || {
        let pool = get(&socket, "/v1/pools/default").await?;
        if !pool["roll"].is_null() {
            return Ok(Some("the roll was seen"));
        }
        let current = get(&socket, "/v1/templates/default").await?["current"].clone();
        // It may be shorter than a look.
        Ok((current != before).then_some("the new generation was seen"))
    });
    Ok(Provoked {
        since: seen.await?.to_owned(),
        delay: *[
            up_to(Duration::from_millis(100), rng),
            up_to(Duration::from_secs(3), rng),
        ]
        .choose(rng)
        .context("two delays")?,
        pending: Pending::Nothing,
    })
}

/// Has a generation built; the operator's own build will do. Answers the build's id.
async fn rebuild(soak: &Arc<Soak>) -> anyhow::Result<String> {
    let socket = soak.place.socket();
    let ask = Ask::post("/v1/templates/default/rebuild");
    let build = until("a build", async || {
        let reply = call(&socket, &ask).await?;
        if reply.status == 202 {
            soak.books.count("rebuilds for a kill");
            return Ok(reply.body["id"].as_str().map(str::to_owned));
        }
        anyhow::ensure!(
            reply.status == 409,
            "rebuild: {} {}",
            reply.status,
            reply.body
        );
        let template = get(&socket, "/v1/templates/default").await?;
        Ok(template["build"].as_str().map(str::to_owned))
    });
    build.await
}

async fn until<T>(
    what: &str,
    look: impl AsyncFn() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + STEP_DEADLINE;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "no {what} within {STEP_DEADLINE:?}"
        );
        tokio::time::sleep(AGAIN).await;
    }
}

/// A delay of any order of magnitude: the first microseconds are as likely as the last half.
fn up_to(most: Duration, rng: &mut StdRng) -> Duration {
    let span = most.as_secs_f64() / DELAY_LEAST.as_secs_f64();
    DELAY_LEAST.mul_f64(span.powf(rng.random_range(0.0..1.0)))
}
