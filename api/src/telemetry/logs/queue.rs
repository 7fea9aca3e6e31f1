//! The bounded queue between those who log and the thread that writes.

use std::collections::VecDeque;
use std::sync::{Condvar, LockResult, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that wait at most: a second of a busy service at `debug`.
pub(super) const LINES_MAX: usize = 4096;
/// Bytes that wait at most. Most lines have two hundred bytes.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// Lines on their way to the writer. Whoever logs waits for nothing but the few instructions under the lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer has something to do.
    filled: Condvar,
    /// The writer has nothing to do.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Entry>,
    bytes: usize,
    /// Lines dropped since the last one that was taken in, to be reported in their place.
    unreported: u64,
    /// All lines that were lost.
    dropped: u64,
    is_writing: bool,
}

/// One line, and how many were dropped right before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) dropped_before: u64,
    /// `None` where nothing came after those that were dropped.
    pub(super) line: Option<String>,
}

impl Queue {
    /// Takes a line in, or drops it where there is no room.
    pub(super) fn push(&self, line: String) {
        let mut state = self.lock();
        if state.lines.len() >= LINES_MAX || state.bytes + line.len() > BYTES_MAX {
            state.unreported += 1;
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        let dropped_before = std::mem::take(&mut state.unreported);
        state.lines.push_back(Entry {
            dropped_before,
            line: Some(line),
        });
        self.filled.notify_one();
    }

    /// The next line, for the one writer. It blocks until there is one; asking again means that the one before is done.
    pub(super) fn next(&self) -> Entry {
        let mut state = self.lock();
        state.is_writing = false;
        loop {
            if let Some(entry) = state.take() {
                state.is_writing = true;
                return entry;
            }
            self.idle.notify_all();
            state = whole(self.filled.wait(state));
        }
    }

    /// Counts a line that was taken and could not be written.
    pub(super) fn lost(&self) {
        self.lock().dropped += 1;
    }

    /// How many lines were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        whole(self.state.lock())
    }

    /// Waits until everything was written, at most so long. Answers whether it was.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.is_writing || !state.lines.is_empty() || state.unreported > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = whole(self.idle.wait_timeout(state, left)).0;
        }
        true
    }
}

/// Nothing under the lock can panic, and a poisoned lock could not be logged: it is passed over.
fn whole<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn take(&mut self) -> Option<Entry> {
        if let Some(entry) = self.lines.pop_front() {
            self.bytes -= entry.line.as_ref().map_or(0, String::len);
            return Some(entry);
        }
        let dropped_before = std::mem::take(&mut self.unreported);
        (dropped_before > 0).then_some(Entry {
            dropped_before,
            line: None,
        })
    }
}
