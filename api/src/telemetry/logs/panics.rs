//! Panics as lines of the logs.

use std::panic;

use tracing::error;
use vmint_factory::{abort_supervised, before_abort};

use super::flush_logs;

/// Lets a panic be a line of the logs, in their format, and end the process where it is in a supervised task. The hook
/// itself writes nothing and waits for nothing but the flush before an abort, which has a deadline.
pub fn log_panics() {
    before_abort(flush_logs);
    panic::set_hook(Box::new(|panic| {
        error!(panic = panic.to_string(), "a part of the service panicked");
        abort_supervised();
    }));
}
