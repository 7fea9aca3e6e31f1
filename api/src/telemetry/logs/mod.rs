//! Logs: `tracing` events to standard error, for people or for machines.
//!
//! ```text
//!  any thread ── event ──> layer ── one line of text ──> queue ──> writer (a thread of its own) ──> standard error
//!                                                        │ full: the line is dropped, and counted
//! ```
//! What always holds: no thread but the writer's ever touches standard error, so a reader that stalls, goes away or has no
//! room stops nothing but the lines themselves. The queue is bounded in lines and bytes. Lines that are lost are counted in
//! `vmint_log_lines_dropped_total`, and the first line that can be written again says how many they were. An event is one
//! line, whatever its values hold.

mod layer;
mod line;
mod panics;
mod queue;
mod writer;

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use layer::Lines;
use line::Style;
pub use panics::log_panics;
use queue::Queue;

use crate::plain::plain;

/// How long the lines that are still queued may take at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The queue of this process, and how its lines look.
static QUEUE: OnceLock<(Arc<Queue>, Style)> = OnceLock::new();

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is no filter.
    #[error(transparent)]
    Filter(#[from] ParseError),
    /// The writer's thread cannot be started.
    #[error("the thread that writes logs cannot be started: {0}")]
    Thread(#[source] io::Error),
}

/// Starts the logs of the process. `level` is a level, or a filter as `tracing` knows it (`info,vmint_factory=debug`).
///
/// # Errors
/// `level` is no filter, or the host has no room for another thread.
pub fn start_logs(format: LogFormat, level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(level)?;
    let style = match format {
        LogFormat::Json => Style::Json,
        LogFormat::Text if io::stderr().is_terminal() => Style::Colored,
        LogFormat::Text => Style::Text,
    };
    let queue = Arc::new(Queue::default());
    let lines = Lines::new(style, Arc::clone(&queue));
    // A second subscriber (tests in one process) is no reason not to serve.
    if tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .is_ok()
    {
        writer::start(Arc::clone(&queue), style).map_err(LogError::Thread)?;
        let _ = QUEUE.set((queue, style));
    }
    Ok(())
}

/// Queues the error that a service ends with: text, of any number of lines; where logs are JSON, one event. No level leaves it
/// out.
pub fn log_last_words(text: &str) {
    match QUEUE.get() {
        Some((queue, Style::Json)) => queue.push(line::last_words(text)),
        _ => log_plain(text),
    }
}

/// Queues a line that is no event, as it is.
pub fn log_plain(line: &str) {
    if let Some((queue, _)) = QUEUE.get() {
        queue.push(plain(line) + "\n");
    }
}

/// Waits until what was logged is written, for one second at most: the reader may be away.
pub fn flush_logs() {
    if let Some((queue, _)) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}

/// How many lines were lost since the process began.
#[must_use]
pub fn dropped_log_lines() -> u64 {
    QUEUE.get().map_or(0, |(queue, _)| queue.dropped())
}
