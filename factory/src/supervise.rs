//! Supervised tasks: a panic in one of them ends the process.
//!
//! A task that another one awaits gives its failure to that one: a request handler's panic is a 500, a launch's panic a
//! failed launch. A task that nobody awaits (a pool, a template's keeper, a VM's owner, an acceptor) would be missing
//! without a trace: leases without an end, a readiness that stays green. Such a task is supervised, and its panic aborts
//! the process, since the next start takes up what a killed service has left.
//!
//! What serves one guest, on words that the guest chose, is contained instead: its socket counts as closed.
//!
//! What always holds:
//! - The process ends where the panic begins, in the panic hook, before anything unwinds: unwinding would drop handles, and
//!   a VM's last handle ends the VM. [`abort_supervised`] is that part of the hook.
//! - Work that a supervised task hands to another thread (`aside`) is supervised, too.
//! - Where no hook of ours is installed (another program, a test), and where a panic is resumed without the hook, the
//!   task's wrapper aborts.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::OnceLock;

use futures::FutureExt as _;
use tracing::Span;

thread_local! {
    /// The supervised task that runs on this thread now.
    static TASK: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// What is done before the process aborts.
static BEFORE_ABORT: OnceLock<fn()> = OnceLock::new();

/// Registers what is done before the process aborts because of a supervised task, such as a bounded flush of the logs. The
/// first registration holds.
pub fn before_abort(flush: fn()) {
    // A second one is that of another service in the same process, in tests.
    let _ = BEFORE_ABORT.set(flush);
}

/// Runs a task whose panic ends the process. `name` is for the log.
///
/// # Cancel safety
/// As that of the task.
pub async fn supervise<F: Future>(name: &'static str, task: F) -> F::Output {
    let mut task = pin!(task);
    std::future::poll_fn(|context| {
        let polled = {
            let _running = enter(Some(name));
            catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)))
        };
        match polled {
            Ok(polled) => polled,
            Err(_) => abort_for(name),
        }
    })
    .await
}

/// Runs a task that serves one guest, and whose end others hear of: a panic, for which a guest may have found the words, is
/// the end `lost`, and costs that guest alone.
///
/// # Cancel safety
/// As that of the task.
pub(crate) async fn contain<T>(task: impl Future<Output = T>, lost: T) -> T {
    let contained = AssertUnwindSafe(task).catch_unwind();
    contained.await.unwrap_or(lost)
}

/// Supervises the rest of the current thread's work, for as long as the answer lives.
pub fn supervise_thread(name: &'static str) -> Supervision {
    enter(Some(name))
}

/// The part of a panic hook that comes after the panic was logged: aborts the process where the panic is in a supervised
/// task.
pub fn abort_supervised() {
    if let Some(task) = TASK.get() {
        abort_for(task);
    }
}

fn abort_for(task: &str) -> ! {
    abort(&format!(
        "a task that it cannot do without has panicked ({task})"
    ))
}

/// Ends the process: the log says why, and is flushed.
pub(crate) fn abort(why: &str) -> ! {
    tracing::error!("the process aborts: {why}; the next start takes its sandboxes up");
    if let Some(flush) = BEFORE_ABORT.get() {
        flush();
    }
    std::process::abort()
}

/// The supervision and the span of the calling task, for work that it hands to another thread.
pub(crate) fn inherit<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (task, span) = (TASK.get(), Span::current());
    move || {
        let _running = enter(task);
        span.in_scope(work)
    }
}

fn enter(task: Option<&'static str>) -> Supervision {
    Supervision {
        before: TASK.replace(task),
    }
}

/// A stretch of time in which the current thread belongs to a supervised task, or to none.
#[derive(Debug)]
#[must_use]
pub struct Supervision {
    before: Option<&'static str>,
}

impl Drop for Supervision {
    fn drop(&mut self) {
        TASK.set(self.before);
    }
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
