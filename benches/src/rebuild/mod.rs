//! Whether checkouts wait longer while their template is rebuilt: the same load goes on before a rebuild and during it, in
//! turn, on one service.
//!
//! Two loads: checkouts that come at a rate which the host can sustain, and clients without a pause, who take clones
//! as fast as they are made. A rebuild lasts from its order until the pool is over on the new generation.

mod load;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::lab::DEADLINE;
use crate::service::{Connection, Service, program};
use crate::stats::{Sample, Target, verdict};
use load::{Arm, Load, Rhythm, Seen};

/// Clones that wait: as many as come while one is made on a busy host.
const POOL_TARGET: u32 = 3;
/// How long is looked before the first rebuild. Later as long as the last rebuild took.
const FIRST_LOOK: Duration = Duration::from_secs(15);
/// What comes in the first moments after a rebuild belongs to neither: the files of an old generation are given back.
const SETTLING: Duration = Duration::from_secs(2);
/// Whoever waits no longer than this has not waited for a clone: on an idle host one takes twice as long.
const A_MOMENT_MS: f64 = 50.0;
/// How often the service is asked how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What is asked of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many rebuilds under each load.
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// How often a sandbox is checked out, milliseconds.
    #[arg(long, default_value_t = 600)]
    interval_ms: u64,
    /// The vmint that is measured; without it, the release build.
    #[arg(long)]
    program: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 4,
            interval_ms: 600,
            program: None,
        }
    }
}

/// Measures under both loads.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let program = match &options.program {
        Some(program) => program.canonicalize().context("no such program")?,
        None => program()?,
    };
    let steady = Rhythm::Every(Duration::from_millis(options.interval_ms));
    for rhythm in [steady, Rhythm::WithoutPause] {
        println!(
            "\ncheckouts before a rebuild and during it, {rhythm}, a pool of {POOL_TARGET}, {} rebuilds",
            options.rounds
        );
        let mut service = Service::start_program(&program, POOL_TARGET)?;
        let outcome = measure(&mut service, rhythm, options.rounds).await;
        service.stop().await?;
        let (seen, rebuilds) = outcome?;
        print(rhythm, &seen, &rebuilds);
    }
    Ok(())
}

fn print(rhythm: Rhythm, seen: &Seen, rebuilds: &Sample) {
    println!("  before               {}", seen.before);
    println!("  during               {}", seen.during);
    println!("  a rebuild with roll  {rebuilds}");
    let ratio =
        |percentile| seen.during.percentile_ms(percentile) / seen.before.percentile_ms(percentile);
    let at_most = Target::AtMost;
    match rhythm {
        // Nobody waits for a clone in either arm, and the longest of some tens of moments is a matter of chance.
        Rhythm::Every(_) => {
            let (what, longest) = ("the longest wait during", seen.during.percentile_ms(100.0));
            verdict(what, longest, "ms", at_most(A_MOMENT_MS));
        }
        Rhythm::WithoutPause => {
            for (what, percentile, limit) in [
                ("wait during / before, p50", 50.0, 1.3),
                ("wait during / before, p99", 99.0, 2.0),
                ("wait during / before, longest", 100.0, 2.0),
            ] {
                verdict(what, ratio(percentile), "x", at_most(limit));
            }
        }
    }
    for failure in &seen.failures {
        println!("  failed: {failure}");
    }
    // As many as anybody will ever see of them.
    #[allow(clippy::cast_precision_loss)]
    let failures = seen.failures.len() as f64;
    verdict("jobs that failed", failures, "", Target::AtMost(0.0));
}

async fn measure(
    service: &mut Service,
    rhythm: Rhythm,
    rounds: u32,
) -> anyhow::Result<(Seen, Sample)> {
    let mut operator = Operator(service.connect().await?);
    operator.0.until_full().await?;
    let load = Load::start(rhythm, service.port)?;
    let mut rebuilds = Sample::new()?;
    let mut look = FIRST_LOOK;
    for _ in 0..rounds {
        operator.watch(SETTLING).await?;
        load.enter(Arm::Before);
        operator.watch(look).await?;
        load.enter(Arm::During);
        look = operator.rebuild().await?;
        load.enter(Arm::Neither);
        rebuilds.add(look)?;
    }
    Ok((load.end().await?, rebuilds))
}

/// Whoever orders rebuilds.
struct Operator(Connection);

impl Operator {
    /// Does for a while what is done during a rebuild: it asks how far the service is.
    async fn watch(&mut self, span: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.state().await?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Rebuilds, and answers how long it took until the pool was over on the new generation.
    async fn rebuild(&mut self) -> anyhow::Result<Duration> {
        let (old, _) = self.state().await?;
        let begun = Instant::now();
        let path = "/v1/templates/default/rebuild";
        let (status, build) = self.0.call(Method::POST, path).await?;
        anyhow::ensure!(status == StatusCode::ACCEPTED, "{status}: {build}");
        loop {
            let (current, roll) = self.state().await?;
            if current != old && roll.is_null() {
                return Ok(begun.elapsed());
            }
            let path = format!("/v1/builds/{}", build["id"].as_str().unwrap_or_default());
            let (_, build) = self.0.call(Method::GET, &path).await?;
            anyhow::ensure!(build["state"] != "failed", "a build failed: {build}");
            anyhow::ensure!(begun.elapsed() < DEADLINE, "no end of a rebuild: {roll}");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The current generation, and the roll where there is one.
    async fn state(&mut self) -> anyhow::Result<(Value, Value)> {
        let (_, template) = self.0.call(Method::GET, "/v1/templates/default").await?;
        let (_, pool) = self.0.call(Method::GET, "/v1/pools/default").await?;
        Ok((template["current"].clone(), pool["roll"].clone()))
    }
}
