//! When a connection was heard from last.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The moment at which the other side was heard from last. Cheap to clone; all clones are the same moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// It was heard from now.
    pub(crate) fn now(&self) {
        let micros = start().elapsed().as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        // Zero is never.
        self.0
            .fetch_max(micros.saturating_add(1), Ordering::Relaxed);
    }

    /// When that was; `None` when it has not been yet.
    pub(crate) fn last(&self) -> Option<Instant> {
        let micros = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        start().checked_add(Duration::from_micros(micros))
    }
}

/// Moments are counted from the first one that was of interest.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_moment_counts_for_all_clones() {
        let heard = Heard::default();
        assert_eq!(heard.last(), None);
        let before = Instant::now();
        heard.clone().now();
        let first = heard.last().expect("it was heard from");
        assert!(first + Duration::from_micros(1) >= before && first <= Instant::now());
        heard.now();
        assert!(heard.last() >= Some(first));
    }
}
