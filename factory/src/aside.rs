//! Work that blocks, on a thread that may.

use std::cell::Cell;

use tokio::runtime::Handle;

use crate::supervise::inherit;

thread_local! {
    /// Whether this thread does such work now.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Does something that blocks without holding up what else runs, in the caller's span. A panic in it goes on in the caller.
///
/// # Cancel safety
/// A dropped call does not stop the work; its result is dropped when it is done.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = inherit(work);
    let work = move || {
        let _over = Over::begin();
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends before the work has begun, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Does something that blocks on the very thread that it is called on: in a test nothing else waits for that.
#[cfg(test)]
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    let _over = Over::begin();
    work()
}

/// The thread may block until this is dropped; it is used for other things afterwards.
struct Over;

impl Over {
    fn begin() -> Self {
        MAY_BLOCK.set(true);
        Self
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        MAY_BLOCK.set(false);
    }
}

/// Stands at the beginning of what blocks, and is called within a runtime from [`aside`] alone.
///
/// # Panics
/// In builds with debug assertions, where `what` is done on a thread on which tasks run: all of them would wait.
#[track_caller]
pub(crate) fn blocks(what: &str) {
    debug_assert!(
        MAY_BLOCK.get() || Handle::try_current().is_err(),
        "{what} blocks, and tasks run on this thread: do it in `aside`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_blocks_is_done_aside() {
        aside(|| blocks("a test")).await;
        // A thread that is used again.
        let panicked = tokio::task::spawn_blocking(|| MAY_BLOCK.get());
        assert!(!panicked.await.expect("it is over"));
    }

    #[test]
    fn what_blocks_where_there_are_no_tasks_is_done_in_place() {
        blocks("a test");
    }

    #[tokio::test]
    #[should_panic(expected = "a test blocks, and tasks run on this thread")]
    async fn what_blocks_in_a_task_is_found() {
        blocks("a test");
    }
}
