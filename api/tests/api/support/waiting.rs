//! Waiting for the thing itself, where nothing tells of it.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Longer than anything here takes; what never comes fails the test.
const PATIENCE: Duration = Duration::from_secs(20);
/// The time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Looks until there is something to see.
pub(crate) async fn seen<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            match look().await {
                Some(seen) => return seen,
                None => sleep(LOOK_INTERVAL).await,
            }
        }
    };
    match timeout(PATIENCE, looks).await {
        Ok(seen) => seen,
        Err(_) => panic!("{what}: not in time"),
    }
}
