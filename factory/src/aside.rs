//! Work that blocks, on a thread that may.

use crate::supervise::inherit;

/// Does something that blocks without holding up what else runs, in the caller's span. A panic in it goes on in the caller.
///
/// # Cancel safety
/// A dropped call does not stop the work; its result is dropped when it is done.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(inherit(work)).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends before the work has begun, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}
