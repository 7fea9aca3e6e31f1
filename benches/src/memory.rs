//! Private memory of a clone.

use anyhow::Context;
use vmint_factory::Guest as _;

use crate::lab::{Lab, MEMORY_MIB, first_command};
use crate::stats::{Target, verdict};

const MIB: f64 = 1024.0 * 1024.0;

/// Makes clones that live at once, and looks at each when it is ready and after its first command.
pub(crate) async fn run(count: u32) -> anyhow::Result<()> {
    println!("\nmemory of a clone, {count} alive at once");
    let lab = Lab::open().await?;
    let generation = lab.build().await?;
    let mut vms = Vec::new();
    for _ in 0..count {
        vms.push(lab.mint(&generation).await?);
    }
    let (mut ready, mut used, mut dirtied) = (Vec::new(), Vec::new(), Vec::new());
    for vm in &vms {
        ready.push(mib(vm.anonymous_bytes()?));
        dirtied.push(mib(guest_anonymous_bytes(vm.pid())?));
    }
    for vm in &vms {
        vm.exec(first_command()).await?;
        used.push(mib(vm.anonymous_bytes()?));
    }
    #[allow(clippy::cast_precision_loss)]
    let guest_mib = MEMORY_MIB as f64;
    let shared = 100.0 * (1.0 - worst(&dirtied) / guest_mib);
    verdict(
        "private memory when ready (worst of all)",
        worst(&ready),
        "MiB",
        Target::AtMost(22.0),
    );
    verdict(
        "private memory after the first command (worst)",
        worst(&used),
        "MiB",
        Target::AtMost(34.0),
    );
    verdict(
        "guest RAM that is shared when ready (worst)",
        shared,
        "%",
        Target::AtLeast(99.0),
    );
    for vm in vms {
        vm.end().await;
    }
    Ok(())
}

pub(crate) fn mib(bytes: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    bytes / MIB
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// What a process has for itself.
pub(crate) fn anonymous_bytes(pid: u32) -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.context("smaps_rollup says what is anonymous")?;
    Ok(kib.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

/// Pages of the guest's memory that the process has for itself: `Anonymous` of the mapping of the file `memory`.
fn guest_anonymous_bytes(pid: u32) -> anyhow::Result<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut is_guest = false;
    let mut kib = 0;
    for line in smaps.lines() {
        if let Some(value) = line.strip_prefix("Anonymous:") {
            if is_guest {
                kib += value.trim().trim_end_matches("kB").trim().parse::<u64>()?;
            }
        } else if line
            .split_whitespace()
            .next()
            .is_some_and(|word| word.contains('-'))
        {
            is_guest = line.ends_with("/memory");
        }
    }
    anyhow::ensure!(kib > 0, "process {pid} maps no template memory");
    Ok(kib * 1024)
}
