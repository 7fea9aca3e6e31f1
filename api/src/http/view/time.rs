//! Durations and times in JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Timestamp, Unit};

/// A time as the API shows it: to the millisecond. Many programs cannot read more than six digits.
pub(super) fn shown(time: Timestamp) -> Timestamp {
    time.round(Unit::Millisecond).unwrap_or(time)
}

/// Milliseconds, to the microsecond.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// Seconds, to the millisecond.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

/// Named phases, each in milliseconds.
pub(super) fn phases_ms(phases: Vec<(String, Duration)>) -> BTreeMap<String, f64> {
    phases
        .into_iter()
        .map(|(phase, took)| (phase, ms(took)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_keep_the_digits_that_they_promise() {
        assert_eq!(ms(Duration::from_nanos(1_234_567)), 1.234);
        assert_eq!(seconds(Duration::from_micros(1_234_567)), 1.234);
    }
}
