//! What the service tells of itself: logs, and metrics for Prometheus.
//!
//! Metrics come from two sources. Events (a checkout, a start, a request) are recorded into [`Metrics`] as they
//! happen. Levels (how many clones, how much memory) are read from the cache when somebody scrapes, so that nothing
//! can be left over from a template or a generation that is gone.

mod http_seconds;
mod levels;
mod logs;
mod metrics;
mod names;

pub use http_seconds::HttpRequest;
pub use levels::render_levels;
pub use logs::{
    LogError, LogFormat, dropped_log_lines, flush_logs, log_last_words, log_panics, log_plain,
    start_logs,
};
pub use metrics::Metrics;
