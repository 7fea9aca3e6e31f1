//! Checkout from a filled pool of the real service, over a kept loopback connection and over new ones.

use std::time::Instant;

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{Connection, Service};
use crate::stats::{Sample, Target, verdict};

/// Checkouts that are measured in turns: plain, with a binding, on a new connection.
const ARMS: u32 = 3;

/// Checks sandboxes out of a pool that is full each time.
pub(crate) async fn run(count: u32) -> anyhow::Result<()> {
    println!("\ncheckout from a filled pool over loopback connections, {count} times");
    let mut service = Service::start()?;
    let outcome = measure(&mut service, count).await;
    service.stop().await?;
    let Measured {
        floor,
        plain,
        bound,
        connecting,
    } = outcome?;
    println!("  GET /healthz         {floor}");
    println!("  checkout             {plain}");
    println!("  ... with name, env   {bound}");
    println!("  ... new connection   {connecting}");
    verdict("p50", plain.p50_ms(), "ms", Target::AtMost(0.3));
    verdict("p99", plain.percentile_ms(99.0), "ms", Target::AtMost(2.0));
    verdict(
        "p50 with hostname and env",
        bound.p50_ms(),
        "ms",
        Target::AtMost(5.0),
    );
    verdict(
        "p50 on a new connection, above that on the kept one",
        connecting.p50_ms() - plain.p50_ms(),
        "ms",
        Target::AtMost(0.2),
    );
    Ok(())
}

/// What was measured in one run, in turns.
struct Measured {
    floor: Sample,
    plain: Sample,
    bound: Sample,
    /// The time to connect included.
    connecting: Sample,
}

async fn measure(service: &mut Service, count: u32) -> anyhow::Result<Measured> {
    let mut connection = service.connect().await?;
    let mut measured = Measured {
        floor: Sample::new()?,
        plain: Sample::new()?,
        bound: Sample::new()?,
        connecting: Sample::new()?,
    };
    let binding = json!({"hostname": "job-17", "env": {"JOB": "17", "TOKEN": "secret"}});
    for round in 0..ARMS * count {
        connection.until_full().await?;
        // The floor: a request that does nothing, on the same connection, in the same moment.
        let begun = Instant::now();
        connection.call(Method::GET, "/healthz").await?;
        measured.floor.add(begun.elapsed())?;
        let begun = Instant::now();
        let (sample, answer) = match round % ARMS {
            0 => (&mut measured.plain, checkout(&mut connection, None).await?),
            1 => (
                &mut measured.bound,
                checkout(&mut connection, Some(&binding)).await?,
            ),
            _ => {
                let mut new = Connection::open(service.port).await?;
                (&mut measured.connecting, checkout(&mut new, None).await?)
            }
        };
        sample.add(begun.elapsed())?;
        let (status, sandbox) = answer;
        anyhow::ensure!(
            status == StatusCode::CREATED && sandbox["source"] == "pool",
            "{status}: {sandbox}"
        );
        let id = sandbox["id"].as_str().context("a sandbox has an id")?;
        connection.release(id).await?;
    }
    Ok(measured)
}

async fn checkout(
    connection: &mut Connection,
    body: Option<&Value>,
) -> anyhow::Result<(StatusCode, Value)> {
    connection.send(Method::POST, "/v1/sandboxes", body).await
}
