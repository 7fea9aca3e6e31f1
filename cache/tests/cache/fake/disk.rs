//! A disk that takes no writes for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Longest that a write waits: a test that lets none through fails, and does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(crate) struct Disk {
    hangs: Mutex<bool>,
    works: Condvar,
    waiting: AtomicUsize,
}

impl Disk {
    /// Writes wait from now on.
    pub(crate) fn hangs(&self) {
        *self.hangs.lock().unwrap() = true;
    }

    /// All writes go on.
    pub(crate) fn works(&self) {
        *self.hangs.lock().unwrap() = false;
        self.works.notify_all();
    }

    /// Writes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Waits as long as a write takes.
    pub(super) fn write(&self) {
        let hangs = self.hangs.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waited = self
            .works
            .wait_timeout_while(hangs, PATIENCE, |hangs| *hangs)
            .unwrap();
        drop(waited);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
