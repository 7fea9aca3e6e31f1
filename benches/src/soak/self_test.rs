//! Shows that a soak can fail. A service lives, dies and stops as in a soak; meanwhile one thing after another that must
//! not be is put in place. The very look that ends a soak has to name it, and to agree again once it is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::UnixStream;

use super::Soak;
use super::audit;
use super::books::Held;
use super::client::Client;
use super::order::Order;
use super::plant::{Plant, Planted};
use super::service::Service;
use super::upkeep::{Span, Upkeep};

/// How long a look waits until a planted thing is gone. It stays, so the first glance could be the last.
const PATIENCE: Duration = Duration::from_millis(250);
/// How much of a service's life is watched for growth: enough for some samples of its beginning and its end.
const SPAN: Span = Span {
    life_least: Duration::from_secs(2),
    window: Duration::from_secs(2),
};
/// Each is a descriptor of the service: more of them than it may have more.
const CONNECTIONS: usize = 64;

/// Fails with the first thing that is not noticed, or is noticed when it is gone.
pub(super) async fn run(soak: &Arc<Soak>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut service = Service::start(soak)?;
    let ready = service.until_ready().await?;
    println!("ready after {ready:.1?}, the first build included");
    let client = Client::new(soak);
    let held = client.checkout(&Order::bound("planted".to_owned())).await?;
    let held = held.context("a checkout that waits 30 s came to nothing")?;
    audit::agree(soak, &mut service).await?;
    growth(soak, &service).await?;
    for plant in Plant::ALIVE {
        if let Some(planted) = put(&client, plant, &held).await? {
            let seen = audit::agree_within(soak, &mut service, PATIENCE).await;
            let name = planted.name.clone();
            judge(&client, planted, seen, &[plant.words(), &name]).await?;
            audit::agree(soak, &mut service).await?;
        }
    }
    let service = death(soak, service).await?;
    service.stop().await?;
    audit::nothing_left(soak).await?;
    stopped(&client, &held).await?;
    soak.books.verdict()?;
    println!("all were named in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// After a stop less may be there, and after `vmint clean` nothing.
async fn stopped(client: &Client, held: &Held) -> anyhow::Result<()> {
    let soak = &client.soak;
    for plant in Plant::STOPPED {
        if let Some(planted) = put(client, plant, held).await? {
            let seen = audit::nothing_left_within(soak, PATIENCE).await;
            // A process is named by its number.
            let name = planted.pid().unwrap_or_else(|| planted.name.clone());
            judge(client, planted, seen, &["left: ", &name]).await?;
            audit::nothing_left(soak).await?;
        }
    }
    if let Some(planted) = put(client, Plant::Stranger, held).await? {
        let seen = soak.place.clean().await;
        judge(client, planted, seen, &["vmint clean has left something"]).await?;
    }
    soak.place.clean().await
}

/// Puts it in place, or says that this cannot be done here.
async fn put(client: &Client, plant: Plant, held: &Held) -> anyhow::Result<Option<Planted>> {
    print!("  {:<36} ", plant.as_str());
    let planted = plant.put(client, held).await?;
    if planted.is_none() {
        println!("cannot be planted: that needs root");
    }
    Ok(planted)
}

/// Takes it away, and demands that one line of what the look has said has all these words.
async fn judge(
    client: &Client,
    planted: Planted,
    seen: anyhow::Result<()>,
    words: &[&str],
) -> anyhow::Result<()> {
    planted.remove(&client.soak).await?;
    named(seen, words)
}

fn named(seen: anyhow::Result<()>, words: &[&str]) -> anyhow::Result<()> {
    let Err(error) = seen else {
        anyhow::bail!("nobody noticed it: not a word of {words:?}");
    };
    let said = format!("{error:#}");
    let mut lines = said.lines().map(str::trim);
    let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
    let line = line.with_context(|| format!("no line with {words:?} in: {said}"))?;
    println!("{line}");
    Ok(())
}

/// A service that keeps what it opens.
async fn growth(soak: &Soak, service: &Service) -> anyhow::Result<()> {
    let at_rest = grown(soak, service, 0).await;
    at_rest.context("a service that rests is said to grow")?;
    print!("  {:<36} ", "descriptors that stay open");
    let seen = grown(soak, service, CONNECTIONS).await;
    named(seen, &["the service grows", "descriptors"])
}

/// A short life, in which so many connections are made that nobody ends.
async fn grown(soak: &Soak, service: &Service, connections: usize) -> anyhow::Result<()> {
    let pid = service.pid()?.as_raw().try_into()?;
    let upkeep = Upkeep::watch_for(pid, SPAN);
    tokio::time::sleep(SPAN.window).await;
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(UnixStream::connect(soak.place.socket()).await?);
    }
    tokio::time::sleep(2 * SPAN.life_least).await;
    upkeep.close(&soak.books)
}

/// A service that ends unasked; answers the next one.
async fn death(soak: &Arc<Soak>, mut service: Service) -> anyhow::Result<Service> {
    print!("  {:<36} ", "a service that ends unasked");
    service.dies().await?;
    let seen = audit::agree_within(soak, &mut service, PATIENCE).await;
    named(seen, &["the service has ended by itself"])?;
    let mut next = Service::start(soak)?;
    next.until_ready().await?;
    audit::agree(soak, &mut next).await?;
    Ok(next)
}
