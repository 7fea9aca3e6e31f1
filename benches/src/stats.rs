//! What is said of a row of measurements.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Measured durations, to the microsecond.
pub(crate) struct Sample(Histogram<u64>);

impl Sample {
    /// An empty sample.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 600_000_000, 3)?))
    }

    /// Adds a measurement.
    pub(crate) fn add(&mut self, took: Duration) -> anyhow::Result<()> {
        let micros = u64::try_from(took.as_micros())?.max(1);
        Ok(self.0.record(micros)?)
    }

    /// The value below which a share of the measurements lies, milliseconds.
    pub(crate) fn percentile_ms(&self, percentile: f64) -> f64 {
        micros_to_ms(self.0.value_at_percentile(percentile))
    }

    /// The median, milliseconds.
    pub(crate) fn p50_ms(&self) -> f64 {
        self.percentile_ms(50.0)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:>9.3}  p90 {:>9.3}  p99 {:>9.3}  max {:>9.3} ms  (n = {})",
            self.p50_ms(),
            self.percentile_ms(90.0),
            self.percentile_ms(99.0),
            micros_to_ms(self.0.max()),
            self.0.len()
        )
    }
}

fn micros_to_ms(micros: u64) -> f64 {
    // Exact up to 2^53 microseconds.
    #[allow(clippy::cast_precision_loss)]
    let micros = micros as f64;
    micros / 1e3
}

/// Prints a figure beside its target.
pub(crate) fn verdict(what: &str, value: f64, unit: &str, target: Target) {
    let (word, limit, is_met) = match target {
        Target::AtMost(limit) => ("at most", limit, value <= limit),
        Target::AtLeast(limit) => ("at least", limit, value >= limit),
    };
    let verdict = if is_met { "met" } else { "NOT MET" };
    println!("  {what:<52} {value:>8.2} {unit:<4} target {word} {limit} {unit}: {verdict}");
    if !is_met {
        let mut missed = MISSED.lock().unwrap_or_else(PoisonError::into_inner);
        missed.push(what.to_owned());
    }
}

/// The figures of this run that are not as they should be.
static MISSED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Fails when a figure of this run was not as it should be.
pub(crate) fn all_met() -> anyhow::Result<()> {
    let missed = MISSED.lock().unwrap_or_else(PoisonError::into_inner);
    anyhow::ensure!(
        missed.is_empty(),
        "{} targets are NOT MET: {}",
        missed.len(),
        missed.join("; ")
    );
    Ok(())
}

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_not_met_fails_the_run() {
        verdict("a clone", 10.0, "ms", Target::AtMost(10.0));
        verdict("a rate", 2.0, "/s", Target::AtLeast(2.0));
        all_met().expect("both are met");
        verdict("no figure", f64::NAN, "ms", Target::AtMost(10.0));
        verdict("another", 1.0, "/s", Target::AtLeast(2.0));
        let text = all_met().expect_err("two are not").to_string();
        assert_eq!(text, "2 targets are NOT MET: no figure; another");
    }
}
