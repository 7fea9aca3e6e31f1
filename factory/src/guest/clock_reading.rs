//! How far a guest's clock is off.
//!
//! The guest's clock is compared with the host's at the middle of the round trip: when in between it was read is not
//! known, so half of the round trip is uncertain. Where that is more than the tolerance itself, as in a guest that is
//! busy waking up under emulation, the clock is asked for again, and the quickest round trip counts.

use std::time::Duration;

use tokio::time::Instant;

use super::GuestError;
use super::agent::{Agent, describe_ns};
use super::identity::wrong;
use crate::clock::WallNs;

/// How far the clock may be off once it was set, beside what is uncertain about the reading of it.
const CLOCK_TOLERANCE_NS: i64 = 50_000_000;
/// How often a clock is asked for again whose reading is less certain than it may be off.
const CLOCK_QUESTIONS_MAX: usize = 3;

/// How far a guest's clock is ahead of the host's, and what of that is uncertain: nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockReading {
    ahead_ns: i64,
    uncertain_ns: i64,
}

impl ClockReading {
    /// A clock that was read at some time between a question and its answer.
    pub(super) fn new(guest_ns: i64, asked: WallNs, took: Duration) -> Self {
        let half = took / 2;
        Self {
            ahead_ns: guest_ns.saturating_sub(asked.plus(half).0),
            uncertain_ns: i64::try_from(half.as_nanos()).unwrap_or(i64::MAX),
        }
    }

    /// Whether the reading says enough about a clock.
    fn is_certain(self) -> bool {
        self.uncertain_ns <= CLOCK_TOLERANCE_NS
    }

    /// By how much the clock is off for certain: beyond the tolerance, and what is uncertain.
    pub(super) fn beyond_tolerance_ns(self) -> Option<i64> {
        let allowed = CLOCK_TOLERANCE_NS.saturating_add(self.uncertain_ns);
        (self.ahead_ns.saturating_abs() > allowed).then_some(self.ahead_ns)
    }
}

impl Agent {
    /// The reading, or a better one of the same clock.
    pub(super) async fn certain_reading(
        &self,
        first: ClockReading,
    ) -> Result<ClockReading, GuestError> {
        let mut best = first;
        for _ in 0..CLOCK_QUESTIONS_MAX {
            if best.is_certain() {
                break;
            }
            let (asked, begun) = (WallNs::now(), Instant::now());
            let guest_ns = self.time_ns().await?;
            let reading = ClockReading::new(guest_ns, asked, begun.elapsed());
            if reading.uncertain_ns < best.uncertain_ns {
                best = reading;
            }
        }
        Ok(best)
    }
}

/// Refuses a clock that is off for certain.
pub(super) fn check_clock(reading: ClockReading) -> Result<(), GuestError> {
    let Some(ahead_ns) = reading.beyond_tolerance_ns() else {
        return Ok(());
    };
    let side = if ahead_ns > 0 { "ahead" } else { "behind" };
    wrong(format!(
        "its clock is {side} by {}, and {} are allowed, beside {} that are uncertain",
        describe_ns(ahead_ns.saturating_abs()),
        describe_ns(CLOCK_TOLERANCE_NS),
        describe_ns(reading.uncertain_ns)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_off_by_the_tolerance_and_half_of_the_round_trip() {
        let asked = WallNs(1_000_000_000);
        let reading = |guest_ns| ClockReading::new(guest_ns, asked, Duration::from_millis(20));
        for good in [950_000_000, 1_000_000_000, 1_070_000_000] {
            assert!(check_clock(reading(good)).is_ok(), "{good}");
        }
        for (off, side) in [(949_999_999, "behind"), (1_070_000_001, "ahead")] {
            let error = check_clock(reading(off))
                .expect_err("it is off")
                .to_string();
            assert!(error.contains(side), "{error}");
        }
        assert!(reading(0).is_certain());
        let slow = ClockReading::new(0, asked, Duration::from_millis(101));
        assert!(!slow.is_certain(), "it is asked for again");
    }
}
