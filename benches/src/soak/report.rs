//! The figures of a soak.

use std::time::Duration;

use super::Soak;
use crate::stats::Sample;

/// Prints what went well: what did not has ended the soak before.
pub(super) fn print(soak: &Soak, took: Duration) -> anyhow::Result<()> {
    let pages = soak.books.pages();
    println!("\nafter {:.0} s", took.as_secs_f64());
    for (outcome, count) in &pages.outcomes {
        println!("  checkout: {outcome:<42} {count:>7}");
    }
    println!("  checkout  {}", sample(&pages.checkouts)?);
    println!("  exec      {}", sample(&pages.execs)?);
    println!("  ready     {}", sample(&pages.starts)?);
    for (situation, count) in &pages.killed {
        println!("  kill -9 of the service in a {situation:<24} {count:>7}");
    }
    for (what, count) in &pages.counts {
        println!("  {what:<52} {count:>7}");
    }
    println!(
        "  {:<52} {:>7}",
        "builds done at the time of an audit",
        pages.builds()
    );
    for life in &pages.lives {
        println!("  a service of {life}");
    }
    println!("  {:<52} {:>7}", "duplicates", pages.duplicates);
    println!("  {:<52} {:>7}", "leaks", 0);
    println!("everything agreed");
    Ok(())
}

fn sample(durations: &[Duration]) -> anyhow::Result<Sample> {
    let mut sample = Sample::new()?;
    for duration in durations {
        sample.add(*duration)?;
    }
    Ok(sample)
}
