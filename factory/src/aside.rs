//! Work that blocks, on a thread that may.

/// Does something that blocks without holding up what else runs. A panic in it goes on in the caller.
///
/// # Cancel safety
/// A dropped call does not stop the work; its result is dropped when it is done.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}
