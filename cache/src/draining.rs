//! The drain of the whole node: whether it goes on, and what comes after it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The drain of a node.
#[derive(Default)]
pub(crate) struct Draining {
    begun: AtomicBool,
    exits: AtomicBool,
    /// Something may be different: it began or ended, or a pool is empty.
    changed: Notify,
}

impl Draining {
    /// It begins; `exits` adds that the service ends when it is done.
    pub(crate) fn begin(&self, exits: bool) {
        self.begun.store(true, Ordering::SeqCst);
        self.exits.fetch_or(exits, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// It is over.
    pub(crate) fn end(&self) {
        self.begun.store(false, Ordering::SeqCst);
    }

    /// Whether it goes on.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Whether the service ends when it is done.
    pub(crate) fn exits(&self) -> bool {
        self.exits.load(Ordering::SeqCst)
    }

    /// A pool that drains has no clone left.
    pub(crate) fn pool_is_empty(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until something holds, which is looked at whenever it may be different.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed.
            changed.as_mut().enable();
            if holds() {
                return;
            }
            changed.await;
        }
    }
}
