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
mod report;
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
    println!(
        "soak of {} min with {} kills, seed {seed}, in {}",
        options.minutes,
        options.kills,
        soak.place.folder.display()
    );
    let longest = minutes(options.minutes) + KILL_MAX * options.kills + FRAME_MAX;
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(longest, whole(&soak, &options, seed)) => {
            outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("it is not over after {longest:?}")))
        }
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(anyhow::anyhow!("interrupted"))
        }
    };
    match outcome {
        Ok(()) if options.keep => Ok(()),
        Ok(()) => soak.place.remove(),
        Err(error) => {
            soak.place.end_everything()?;
            println!("\n{}", soak.books.failures_text());
            println!("everything is left in {}", soak.place.folder.display());
            Err(error.context(format!("the soak with seed {seed} failed")))
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
