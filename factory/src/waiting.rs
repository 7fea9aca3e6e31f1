//! Waiting in tests: for the thing itself, without taking a core from it, and not for ever.

use std::time::{Duration, Instant};

/// Longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Waits until something is so.
///
/// # Panics
/// When it is not so for too long.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The same in a task.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
