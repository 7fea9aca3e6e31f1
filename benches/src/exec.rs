//! Commands of a sandbox through the service, against the guest's agent by hand.

use std::time::{Duration, Instant};

use crate::service::Service;
use crate::stats::{Sample, Target, verdict};

/// What is run: it does nothing, so what is measured is the way there and back.
const ARGV: [&str; 1] = ["/bin/true"];
/// What goes before the first command and before the second: whatever is run after a rest takes some 2 ms longer, since
/// the host's caches have forgotten the guest. That is no matter of which command it is.
const REST: Duration = Duration::from_millis(300);

/// In each sandbox: its first command, its second one, then more of them in turn with the same by hand, in another clone
/// of the same generation.
pub(crate) async fn run(sandboxes: u32, commands: u32) -> anyhow::Result<()> {
    println!("\nexec of true, {sandboxes} sandboxes");
    let mut service = Service::start()?;
    let outcome = measure(&mut service, sandboxes, commands).await;
    service.stop().await?;
    let Measured {
        first,
        second,
        later,
        by_hand,
    } = outcome?;
    println!("  first                {first}");
    println!("  second               {second}");
    println!("  later                {later}");
    println!("  the same by hand     {by_hand}");
    let ratio = later.p50_ms() / by_hand.p50_ms();
    verdict("exec / the agent by hand", ratio, "x", Target::AtMost(1.3));
    // No slower: within what two medians of the same thing differ by on a shared machine.
    let ratio = first.p50_ms() / second.p50_ms();
    verdict("first exec / second", ratio, "x", Target::AtMost(1.1));
    Ok(())
}

struct Measured {
    first: Sample,
    second: Sample,
    later: Sample,
    by_hand: Sample,
}

async fn measure(service: &mut Service, sandboxes: u32, commands: u32) -> anyhow::Result<Measured> {
    let mut connection = service.connect().await?;
    let mut measured = Measured {
        first: Sample::new()?,
        second: Sample::new()?,
        later: Sample::new()?,
        by_hand: Sample::new()?,
    };
    for _ in 0..sandboxes {
        let id = connection.checkout().await?;
        // The refill is over before anything is measured.
        connection.until_full().await?;
        for sample in [&mut measured.first, &mut measured.second] {
            tokio::time::sleep(REST).await;
            let begun = Instant::now();
            connection.exec(&id, &ARGV).await?;
            sample.add(begun.elapsed())?;
        }
        let mut machine = service.recipe()?.start().await?;
        // What is cold in a clone by hand, the pool's were warmed for.
        for _ in 0..2 {
            machine.exec(&ARGV).await?;
        }
        for turn in 0..commands {
            for is_by_hand in [turn % 2 == 0, turn % 2 == 1] {
                let begun = Instant::now();
                if is_by_hand {
                    machine.exec(&ARGV).await?;
                    measured.by_hand.add(begun.elapsed())?;
                } else {
                    connection.exec(&id, &ARGV).await?;
                    measured.later.add(begun.elapsed())?;
                }
            }
        }
        machine.end().await?;
        connection.release(&id).await?;
    }
    Ok(measured)
}
