//! The host's clocks, to the nanosecond: the wall clock, which guests are set by, and the one that nobody sets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct WallNs(pub(crate) i64);

impl WallNs {
    /// The host's time now.
    pub(crate) fn now() -> Self {
        // A host whose clock stands before 1970 gets zero, and its guests too.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// A time of day.
    pub(crate) fn of(time: Timestamp) -> Self {
        Self(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
    }

    /// The time of day.
    pub(crate) fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(self.0.into()).unwrap_or(Timestamp::MAX)
    }

    /// A later time.
    pub(crate) fn plus(self, after: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX)),
        )
    }

    /// The nanoseconds from another time to this one.
    pub(crate) fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) wall: WallNs,
    /// Since the host's boot, its sleep included. It goes at the same pace whatever is done to the wall clock.
    pub(crate) since_boot: Duration,
}

impl Moment {
    /// Both clocks, read so closely together that nothing came between them.
    pub(crate) fn now() -> Self {
        const TRIES: usize = 100;
        const CLOSE: Duration = Duration::from_millis(1);
        let boot = || {
            let read = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            Duration::try_from(read).unwrap_or_default()
        };
        let read = || {
            let since_boot = boot();
            let wall = WallNs::now();
            (Self { wall, since_boot }, boot().saturating_sub(since_boot))
        };
        let mut tries = std::iter::repeat_with(read).take(TRIES);
        let close = tries.find(|(_, took)| *took < CLOSE);
        close.map_or_else(|| read().0, |(moment, _)| moment)
    }

    /// A later moment.
    pub(crate) fn plus(self, after: Duration) -> Self {
        Self {
            wall: self.wall.plus(after),
            since_boot: self.since_boot + after,
        }
    }

    /// How much later it is than another one of the same boot.
    pub(crate) fn after(self, earlier: Self) -> Duration {
        self.since_boot.saturating_sub(earlier.since_boot)
    }

    /// By how much the wall clock was set, forth or back, since another moment of the same boot; none where it has only
    /// been corrected as it went. Nanoseconds.
    pub(crate) fn wall_set_by(self, earlier: Self) -> Option<i64> {
        /// What no correction comes to within a boot: both clocks are corrected alike.
        const SET_NS: u64 = 1_000_000_000;
        let after = i64::try_from(self.after(earlier).as_nanos()).unwrap_or(i64::MAX);
        let by = self.wall.since(earlier.wall).saturating_sub(after);
        (by.unsigned_abs() > SET_NS).then_some(by)
    }
}

/// Nanoseconds as milliseconds, for a message.
pub(crate) fn ns_to_ms(ns: i64) -> f64 {
    // Exact below 2^53 ns, which is 104 days; it is for people to read.
    #[allow(clippy::cast_precision_loss)]
    let ns = ns as f64;
    ns / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_was_set_when_the_other_one_went_by_otherwise() {
        let at = |wall_ms: i64, boot_ms: u64| Moment {
            wall: WallNs(wall_ms * 1_000_000),
            since_boot: Duration::from_millis(boot_ms),
        };
        let then = at(50_000, 1_000);
        assert_eq!(at(60_000, 11_000).wall_set_by(then), None);
        assert_eq!(at(60_900, 11_000).wall_set_by(then), None, "corrected");
        let hour_ns = 3_600_000_000_000;
        assert_eq!(at(3_660_000, 11_000).wall_set_by(then), Some(hour_ns));
        assert_eq!(at(-3_540_000, 11_000).wall_set_by(then), Some(-hour_ns));
        assert_eq!(Moment::now().wall_set_by(Moment::now()), None);
        assert_eq!(then.plus(Duration::from_millis(7)), at(50_007, 1_007));
    }
}
