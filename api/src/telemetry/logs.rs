//! Logs: `tracing` events to standard error, for people or for machines.

use std::io::{self, IsTerminal};
use std::panic;

use tracing::error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the logs of the process. `level` is a level, or a filter as `tracing` knows it (`info,vmint_factory=debug`).
///
/// # Errors
/// `level` is no filter.
pub fn start_logs(format: LogFormat, level: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(level)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // A second subscriber (tests in one process) is no reason not to serve.
    let _ = match format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    Ok(())
}

/// Lets a panic be a line of the logs, in their format.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        error!(panic = panic.to_string(), "a part of the service panicked");
    }));
}
