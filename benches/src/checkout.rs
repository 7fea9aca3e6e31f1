//! Checkout from a filled pool, over one kept loopback connection to the real service.

use std::time::Instant;

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::json;

use crate::service::Service;
use crate::stats::{Sample, Target, verdict};

/// Checks sandboxes out of a pool that is full each time.
pub(crate) async fn run(count: u32) -> anyhow::Result<()> {
    println!("\ncheckout from a filled pool over a kept loopback connection, {count} times");
    let mut service = Service::start()?;
    let outcome = measure(&mut service, count).await;
    service.stop().await?;
    let Measured {
        floor,
        plain,
        bound,
    } = outcome?;
    println!("  GET /healthz         {floor}");
    println!("  checkout             {plain}");
    println!("  ... with name, env   {bound}");
    verdict("p50", plain.p50_ms(), "ms", Target::AtMost(0.3));
    verdict("p99", plain.percentile_ms(99.0), "ms", Target::AtMost(2.0));
    verdict(
        "p50 with hostname and env",
        bound.p50_ms(),
        "ms",
        Target::AtMost(5.0),
    );
    Ok(())
}

/// What was measured in one run, in turns.
struct Measured {
    floor: Sample,
    plain: Sample,
    bound: Sample,
}

async fn measure(service: &mut Service, count: u32) -> anyhow::Result<Measured> {
    let mut connection = service.connect().await?;
    let mut measured = Measured {
        floor: Sample::new()?,
        plain: Sample::new()?,
        bound: Sample::new()?,
    };
    let binding = json!({"hostname": "job-17", "env": {"JOB": "17", "TOKEN": "secret"}});
    for round in 0..2 * count {
        connection.until_full().await?;
        // The floor: a request that does nothing, on the same connection, in the same moment.
        let begun = Instant::now();
        connection.call(Method::GET, "/healthz").await?;
        measured.floor.add(begun.elapsed())?;
        let is_bound = round % 2 == 1;
        let (sample, body) = if is_bound {
            (&mut measured.bound, Some(&binding))
        } else {
            (&mut measured.plain, None)
        };
        let begun = Instant::now();
        let (status, sandbox) = connection.send(Method::POST, "/v1/sandboxes", body).await?;
        sample.add(begun.elapsed())?;
        anyhow::ensure!(
            status == StatusCode::CREATED && sandbox["source"] == "pool",
            "{status}: {sandbox}"
        );
        let id = sandbox["id"].as_str().context("a sandbox has an id")?;
        connection.release(id).await?;
    }
    Ok(measured)
}
