//! How long to wait after failures: twice as long each time, up to a cap, and never twice exactly the same.

use std::time::Duration;

/// A capped exponential backoff. It keeps no state and rolls no dice: both belong to whoever retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest pause.
    pub cap: Duration,
}

impl Backoff {
    /// The pause after the given number of failures in a row. `roll` is from 0 to 1 and takes up to half of the pause
    /// away, so that those that failed together do not come back together.
    pub(crate) fn pause(self, failures: u32, roll: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        let whole = self.first.saturating_mul(1 << doublings).min(self.cap);
        whole.mul_f64(1.0 - 0.5 * roll.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(200),
        cap: Duration::from_secs(30),
    };

    #[test]
    fn a_pause_doubles_up_to_its_cap() {
        let pauses: Vec<u128> = [1, 2, 3, 9, u32::MAX]
            .map(|n| BACKOFF.pause(n, 0.0).as_millis())
            .to_vec();
        assert_eq!(pauses, [200, 400, 800, 30_000, 30_000]);
    }

    #[test]
    fn jitter_takes_at_most_half() {
        assert_eq!(BACKOFF.pause(2, 1.0).as_millis(), 200);
        assert_eq!(BACKOFF.pause(2, 0.5).as_millis(), 300);
    }
}
