//! Locks that are held for moments only, and never across an `await`.

use std::sync::{Mutex, MutexGuard};

use crate::supervise::abort;

/// Locks. A poisoned lock aborts the process: a panic has left what it guards half changed, such as the lease of a sandbox
/// or the holders of a file, and the next start reads the truth from the disk.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|_| abort("a panic has left shared state half changed"))
}
