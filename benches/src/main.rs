//! Measures vmint on this machine: against a cold boot, against the same QEMU driven by hand, and against its own
//! targets.
//!
//! The machines that this runs on are shared and noisy, so the arms of a comparison are interleaved in one run and what
//! counts are ratios. The clock stops when the guest's first command has answered. Memory is `Anonymous` of
//! `smaps_rollup`: what belongs to one clone alone.
//!
//! ```text
//! cargo run --release -p vmint-benches -- all
//! ```

mod by_hand;
mod checkout;
mod clone;
mod copy;
mod exec;
mod lab;
mod memory;
mod rebuild;
mod service;
mod soak;
mod stats;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "vmint-bench", about = "Measures vmint on this machine")]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Exit with 0 also when a target is not met: for a quick look on a busy machine.
    #[arg(long, global = true)]
    no_fail: bool,
}

#[derive(Subcommand)]
enum What {
    /// Checkout from a filled pool, over one kept loopback connection.
    Checkout {
        /// How many checkouts.
        #[arg(long, default_value_t = 200)]
        count: u32,
    },
    /// A clone up to its first command's answer: against a cold boot, and against QEMU driven by hand.
    Clone {
        /// How many rounds of one cold boot, and of `--clones` clones in either way.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// How many clones in each round and way.
        #[arg(long, default_value_t = 6)]
        clones: u32,
    },
    /// A command of a sandbox: the first against the second, and the second against the guest's agent by hand.
    Exec {
        /// How many sandboxes.
        #[arg(long, default_value_t = 20)]
        sandboxes: u32,
        /// How many commands in each of them, and as many by hand.
        #[arg(long, default_value_t = 20)]
        commands: u32,
    },
    /// 64 MiB into a sandbox and out of it: against the agent's port by hand. And the service's memory meanwhile.
    Copy {
        /// How many rounds of one transfer in each way.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
    },
    /// Private memory of a clone.
    Memory {
        /// How many clones live at once.
        #[arg(long, default_value_t = 4)]
        clones: u32,
    },
    /// Checkouts before a rebuild and during it, under the same load.
    Rebuild(rebuild::Options),
    /// The real service under load, killed again and again: nothing fails, nothing comes twice, nothing is left.
    Soak(soak::Options),
    /// All of it, the soak excepted.
    All,
}

// One thread: a second one would add its wake-ups to every request that is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    measure(args.what).await?;
    if args.no_fail {
        return Ok(());
    }
    stats::all_met()
}

async fn measure(what: What) -> anyhow::Result<()> {
    match what {
        What::Checkout { count } => checkout::run(count).await,
        What::Clone { rounds, clones } => clone::run(rounds, clones).await,
        What::Exec {
            sandboxes,
            commands,
        } => exec::run(sandboxes, commands).await,
        What::Copy { rounds } => copy::run(rounds).await,
        What::Memory { clones } => memory::run(clones).await,
        What::Rebuild(options) => rebuild::run(&options).await,
        What::Soak(options) => soak::run(options).await,
        What::All => {
            memory::run(4).await?;
            clone::run(5, 6).await?;
            checkout::run(200).await?;
            exec::run(20, 20).await?;
            copy::run(10).await?;
            rebuild::run(&rebuild::Options::default()).await
        }
    }
}
