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
    pub(crate) fn now() -> Self {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self {
            wall: WallNs::now(),
            since_boot: Duration::try_from(boot).unwrap_or_default(),
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
