//! Files into a sandbox and out of it, against the agent's port by hand; and what the service's memory does meanwhile.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::body::Bytes;
use tokio::process::Command;

use crate::by_hand::Machine;
use crate::memory::{anonymous_bytes, mib};
use crate::service::{Connection, Service, program};
use crate::stats::{Sample, Target, verdict};

const FILE_BYTES: usize = 64 << 20;
/// Where it is in the guest.
const GUEST_PATH: &str = "/tmp/file";
/// How often the service's memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Ways of a file, in the order in which they are timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ByHand,
    Http,
    Cp,
}

const WAYS: [Way; 3] = [Way::ByHand, Way::Http, Way::Cp];

/// Copies 64 MiB there and back in every way, in turns.
pub(crate) async fn run(rounds: u32) -> anyhow::Result<()> {
    println!("\n64 MiB into a sandbox and out of it, {rounds} rounds");
    let mut service = Service::start()?;
    let outcome = measure(&mut service, rounds).await;
    service.stop().await?;
    let Measured {
        into,
        out_of,
        grown_mib,
    } = outcome?;
    for (direction, samples) in [("in", &into), ("out", &out_of)] {
        let [by_hand, http, cp] = samples;
        println!("  {direction:<3} by hand          {by_hand}");
        println!("  {direction:<3} HTTP             {http}");
        println!("  {direction:<3} vmint cp         {cp}");
    }
    for (direction, [by_hand, http, cp]) in [("in", into), ("out", out_of)] {
        for (way, sample) in [("HTTP", http), ("vmint cp", cp)] {
            let what = format!("{way} {direction} / by hand");
            let ratio = sample.p50_ms() / by_hand.p50_ms();
            verdict(&what, ratio, "x", Target::AtMost(1.5));
        }
    }
    // An eighth of the file.
    verdict(
        "memory that the service grows by meanwhile (highest)",
        grown_mib,
        "MiB",
        Target::AtMost(8.0),
    );
    Ok(())
}

struct Measured {
    into: [Sample; 3],
    out_of: [Sample; 3],
    grown_mib: f64,
}

/// One sandbox, one clone by hand, and the file.
struct Stage<'a> {
    connection: &'a mut Connection,
    machine: Machine,
    id: String,
    content: Bytes,
    folder: &'a Path,
    url: String,
}

async fn measure(service: &mut Service, rounds: u32) -> anyhow::Result<Measured> {
    let mut connection = service.connect().await?;
    let id = connection.checkout().await?;
    connection.until_full().await?;
    let content: Vec<u8> = (0..FILE_BYTES)
        .map(|at| u8::try_from(at / 7 % 251))
        .collect::<Result<_, _>>()?;
    std::fs::write(service.folder.path().join("in"), &content)?;
    let mut stage = Stage {
        connection: &mut connection,
        machine: service.recipe()?.start().await?,
        id,
        content: content.into(),
        folder: service.folder.path(),
        url: format!("http://127.0.0.1:{}", service.port),
    };
    let grown_mib = growth(&mut stage, service.pid()?).await?;
    let mut into = [Sample::new()?, Sample::new()?, Sample::new()?];
    let mut out_of = [Sample::new()?, Sample::new()?, Sample::new()?];
    for round in 0..=rounds {
        for (at, way) in WAYS.into_iter().enumerate() {
            let begun = Instant::now();
            stage.copy_in(way).await?;
            let took_in = begun.elapsed();
            let begun = Instant::now();
            stage.copy_out(way).await?;
            let took_out = begun.elapsed();
            stage.remove(way).await?;
            // The first round finds the guest's memory and code cold, in whichever way.
            if round > 0 {
                into[at].add(took_in)?;
                out_of[at].add(took_out)?;
            }
        }
    }
    let Stage { machine, id, .. } = stage;
    machine.end().await?;
    connection.release(&id).await?;
    Ok(Measured {
        into,
        out_of,
        grown_mib,
    })
}

/// By how much the service's own memory is larger at most while the file goes there and back than it was after a small one
/// did.
async fn growth(stage: &mut Stage<'_>, pid: u32) -> anyhow::Result<f64> {
    let whole = stage.content.clone();
    stage.content = whole.slice(..1 << 20);
    stage.copy_in(Way::Http).await?;
    stage.copy_out(Way::Http).await?;
    stage.content = whole;
    stage.remove(Way::Http).await?;
    let before = anonymous_bytes(pid)?;
    let mut highest = before;
    {
        let copying = async {
            stage.copy_in(Way::Http).await?;
            stage.copy_out(Way::Http).await
        };
        tokio::pin!(copying);
        loop {
            tokio::select! {
                copied = &mut copying => break copied?,
                () = tokio::time::sleep(LOOK_INTERVAL) => highest = highest.max(anonymous_bytes(pid)?),
            }
        }
    }
    stage.remove(Way::Http).await?;
    println!(
        "  the service's own memory: {:.1} MiB before, {:.1} at most",
        mib(before),
        mib(highest)
    );
    Ok(mib(highest.saturating_sub(before)))
}

impl Stage<'_> {
    async fn copy_in(&mut self, way: Way) -> anyhow::Result<()> {
        match way {
            Way::ByHand => self.machine.write(GUEST_PATH, &self.content).await,
            Way::Http => {
                let content = self.content.clone();
                self.connection
                    .put_file(&self.id, GUEST_PATH, content)
                    .await
            }
            Way::Cp => {
                let from = self.folder.join("in");
                let from = from.to_str().context("a path of ours is text")?;
                self.cp(from, &format!("{}:{GUEST_PATH}", self.id)).await
            }
        }
    }

    async fn copy_out(&mut self, way: Way) -> anyhow::Result<()> {
        let size = match way {
            Way::ByHand => self.machine.read(GUEST_PATH).await?,
            Way::Http => self.connection.get_file(&self.id, GUEST_PATH).await?,
            Way::Cp => {
                let to = self.folder.join("out");
                let to_text = to.to_str().context("a path of ours is text")?;
                self.cp(&format!("{}:{GUEST_PATH}", self.id), to_text)
                    .await?;
                usize::try_from(std::fs::metadata(&to)?.len())?
            }
        };
        anyhow::ensure!(size == self.content.len(), "{size} bytes came out");
        Ok(())
    }

    /// The guest has no room for two of them.
    async fn remove(&mut self, way: Way) -> anyhow::Result<()> {
        let argv = ["rm", GUEST_PATH];
        match way {
            Way::ByHand => self.machine.exec(&argv).await.map(drop),
            Way::Http | Way::Cp => self.connection.exec(&self.id, &argv).await,
        }
    }

    async fn cp(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let mut command = Command::new(program()?);
        command.args(["--url", &self.url, "cp", from, to]);
        let done = command.stdin(Stdio::null()).output().await?;
        let said = String::from_utf8_lossy(&done.stderr);
        anyhow::ensure!(done.status.success(), "vmint cp: {}: {said}", done.status);
        Ok(())
    }
}
