//! The tests' own time. It stands still while any task has something to do, and goes on by itself to what comes next: an
//! hour takes no time, and a slow machine sees what a fast one does. The few tests of several threads have real time.

use std::time::Duration;

/// Lets so much of it pass: all that falls due by then is done first, in its order.
///
/// # Panics
/// Where time is real: there, wait for the thing itself.
pub(crate) async fn pass(time: Duration) {
    // It is refused where the clock goes by itself.
    tokio::time::advance(Duration::ZERO).await;
    takes(time).await;
}

/// How long something takes in the fakes.
pub(crate) async fn takes(time: Duration) {
    tokio::time::sleep(time).await;
}
