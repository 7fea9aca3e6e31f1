//! A day of a node, squeezed into minutes: clients check out, run commands and release while generations are rebuilt and
//! taken back, hypervisors are killed, and the service is killed at moments chosen from a seed.
//!
//! ```text
//!  load (clients, rebuilds, vandal) ──requests──> the service <──kill -9── kills (a seeded deck of situations)
//!        │ writes                                     │
//!        ▼                                            ▼
//!      books: who holds what, what was seen   <──── audit: processes, directories, mounts, /v1/* and the books agree
//! ```
//!
//! What always holds:
//! - The load stands still while an audit looks: everybody else holds the gate for reading, request by request.
//! - Whatever is hurt is written into the books before it is hurt, so nobody takes the damage for a fault of the service.
//! - What the audit looks for it finds: `--self-test` puts each such thing in a live service's way (`plant.rs`).
//! - Every wait has a deadline. A soak that fails ends what it has started, by number, and leaves its folder.

mod audit;
mod books;
mod call;
mod client;
mod host;
mod kills;
mod load;
mod order;
mod place;
mod plant;
mod report;
mod self_test;
mod service;
mod situation;
mod upkeep;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{RwLock, watch};

use books::Books;
use kills::Kills;
use load::Load;
use place::Place;
use service::Service;

/// How much longer than it was asked for a soak may take for each kill: a build, a start and an audit on a busy machine.
const KILL_MAX: Duration = Duration::from_secs(60);
/// And for its first build and its end.
const FRAME_MAX: Duration = Duration::from_secs(300);

/// What is asked of a soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long the load goes on at least, minutes.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// How often the service is killed.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// What every choice is made from; printed, so that a run can be had again.
    #[arg(long)]
    seed: Option<u64>,
    /// The vmint to soak; without it, the release build.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Leave the folder, with the log, also when everything agreed.
    #[arg(long)]
    keep: bool,
    /// Instead of a soak, show that one can fail: each thing that must not be is put in place, named by the audit, and
    /// taken away again.
    #[arg(long, conflicts_with_all = ["minutes", "kills", "seed"])]
    self_test: bool,
}

/// What all parts of a soak have in common.
pub(crate) struct Soak {
    place: Place,
    books: Books,
    /// Held for reading while a request runs, for writing while an audit looks.
    gate: RwLock<()>,
}

/// Soaks, prints the figures, and fails with what did not agree.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let program = match &options.program {
        Some(program) => program.canonicalize().context("no such program")?,
        None => crate::service::program()?,
    };
    let soak = Arc::new(Soak {
        place: Place::new(program)?,
        books: Books::default(),
        gate: RwLock::new(()),
    });
    let folder = soak.place.folder.display();
    let (what, outcome) = if options.self_test {
        println!("planting what must not be, in {folder}");
        let outcome = bounded(FRAME_MAX, self_test::run(&soak)).await;
        ("the self-test of the soak".to_owned(), outcome)
    } else {
        println!(
            "soak of {} min with {} kills, seed {seed}, in {folder}",
            options.minutes, options.kills
        );
        let longest = minutes(options.minutes) + KILL_MAX * options.kills + FRAME_MAX;
        let outcome = bounded(longest, whole(&soak, &options, seed)).await;
        (format!("the soak with seed {seed}"), outcome)
    };
    match outcome {
        Ok(()) if options.keep => Ok(()),
        Ok(()) => soak.place.remove(),
        Err(error) => {
            soak.place.end_everything()?;
            println!("\n{}", soak.books.failures_text());
            println!("everything is left in {}", soak.place.folder.display());
            Err(error.context(format!("{what} failed")))
        }
    }
}

/// The work, unless it takes too long or somebody ends it.
async fn bounded(
    longest: Duration,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        outcome = tokio::time::timeout(longest, work) => {
            outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("it is not over after {longest:?}")))
        }
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(anyhow::anyhow!("interrupted"))
        }
    }
}

async fn whole(soak: &Arc<Soak>, options: &Options, seed: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut service = Service::start(soak)?;
    let ready = service.until_ready().await?;
    println!("ready after {ready:.1?}, the first build included");
    audit::agree(soak, &mut service).await?;
    let (stop, stopped) = watch::channel(false);
    let load = Load::start(soak, seed, &stopped);
    let mut kills = Kills::new(soak, seed);
    kills
        .run(&mut service, minutes(options.minutes), options.kills)
        .await?;
    stop.send_replace(true);
    load.end().await?;
    end(soak, service).await?;
    soak.books.verdict()?;
    report::print(soak, begun.elapsed())
}

/// The last look, the stop, and what must not be there any more.
async fn end(soak: &Arc<Soak>, mut service: Service) -> anyhow::Result<()> {
    audit::nothing_leased(soak, &mut service).await?;
    audit::agree(soak, &mut service).await?;
    service.upkeep.close(&soak.books)?;
    let took = service.stop().await?;
    println!("stopped in {took:.1?}");
    audit::nothing_left(soak).await?;
    soak.place.clean().await
}

fn minutes(minutes: u32) -> Duration {
    Duration::from_secs(60) * minutes
}
