//! The core's own names and its own time: numbers, so that it needs neither a random source nor a clock.

use std::time::Duration;

/// A moment: the time since the pool was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// The moment that long after the pool was made.
    pub(crate) const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// A later moment.
    pub(crate) fn after(self, pause: Duration) -> Self {
        Self(self.0.saturating_add(pause))
    }

    /// How long ago an earlier moment was; zero when it was none.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The time since the pool was made.
    pub(crate) const fn since_start(self) -> Duration {
        self.0
    }
}

/// One clone, from the order to make it until its process is gone. Never used twice; later clones have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CloneKey(pub u64);

/// One checkout. Given out by the caller, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub u64);

/// One generation, in the order in which this pool got to know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch(pub u64);
