//! A clone up to its first command's answer.

use std::time::Instant;

use vmint_factory::Guest as _;

use crate::by_hand;
use crate::lab::{Lab, first_command};
use crate::stats::{Sample, Target, verdict};

/// Interleaves, in each round: one cold boot, and clones in vmint's way and by hand in turn.
pub(crate) async fn run(rounds: u32, clones: u32) -> anyhow::Result<()> {
    println!("\na clone up to its first command's answer, {rounds} rounds");
    let lab = Lab::open().await?;
    let (mut cold, mut ours, mut by_hand) = (Sample::new()?, Sample::new()?, Sample::new()?);
    let mut phases = Vec::new();
    for _ in 0..rounds {
        let generation = lab.build().await?;
        let manifest = generation.manifest();
        cold.add(manifest.boot_phases.total + manifest.first_exec)?;
        let mut hand = by_hand::Recipe::of(
            lab.files(&generation),
            &lab.factory.host().qemu_path,
            manifest,
        )?;
        // The first of either arm finds caches cold that the others find warm.
        hand.clone_and_exec().await?;
        lab.mint(&generation).await?.end().await;
        for turn in 0..clones {
            // Whoever comes second gains from the first: they take turns.
            if turn % 2 == 0 {
                by_hand.add(hand.clone_and_exec().await?)?;
            }
            let begun = Instant::now();
            let vm = lab.mint(&generation).await?;
            let end = vm.exec(first_command()).await?;
            ours.add(begun.elapsed())?;
            anyhow::ensure!(
                end.stdout == b"hello\n",
                "the first command answered {end:?}"
            );
            phases.push(vm.phases());
            vm.end().await;
            if turn % 2 == 1 {
                by_hand.add(hand.clone_and_exec().await?)?;
            }
        }
        generation.retire();
    }
    println!("  cold boot            {cold}");
    println!("  clone                {ours}");
    println!("  the same by hand     {by_hand}");
    if let Some(last) = phases.last() {
        println!("  the last clone's phases: {last:?}");
    }
    verdict(
        "cold boot / clone",
        cold.p50_ms() / ours.p50_ms(),
        "x",
        Target::AtLeast(15.0),
    );
    let overhead = 100.0 * (ours.p50_ms() / by_hand.p50_ms() - 1.0);
    verdict(
        "overhead over QEMU driven by hand",
        overhead,
        "%",
        Target::AtMost(10.0),
    );
    Ok(())
}
