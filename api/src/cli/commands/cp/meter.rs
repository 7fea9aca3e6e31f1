//! How far a copy is: a line that changes on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

use crate::cli::output::Output;
use crate::plain::plain;

/// How often the line on a terminal changes by itself.
const TICK: Duration = Duration::from_millis(200);
/// How often a long copy says a line elsewhere.
const LINE_INTERVAL_S: u64 = 10;
/// What is left out and told, a line each: a guest decides how much that is.
const LEFT_OUT_MAX: usize = 1000;
const KNOWN: &str = "{msg} {bytes}/{total_bytes} {binary_bytes_per_sec} [{elapsed}, {eta} left]";
const UNKNOWN: &str = "{spinner} {msg} {bytes} {binary_bytes_per_sec} [{elapsed}]";

/// The progress of one copy, on standard error. Cheap to clone.
#[derive(Clone)]
pub(super) struct Meter(Arc<Inner>);

struct Inner {
    what: String,
    bar: Option<ProgressBar>,
    begun: Instant,
    bytes: AtomicU64,
    lines: AtomicU64,
    /// With `--json`, what is left out is part of the report.
    is_json: bool,
    left_out: Mutex<LeftOut>,
}

/// What a copy leaves out.
#[derive(Default)]
struct LeftOut {
    count: usize,
    /// With `--json`, the first of it.
    lines: Vec<String>,
}

impl LeftOut {
    /// What is said of one more thing, where something is said.
    fn add(&mut self, text: String, is_json: bool) -> Option<String> {
        self.count += 1;
        if self.count > LEFT_OUT_MAX {
            let is_first = self.count == LEFT_OUT_MAX + 1;
            return (is_first && !is_json).then(|| "more is left out, and only counted".to_owned());
        }
        if is_json {
            self.lines.push(text);
            return None;
        }
        Some(text)
    }
}

impl Meter {
    pub(super) fn start(output: Output, source: &str, destination: &str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_style(style(UNKNOWN));
            bar.set_message(format!("{source} to {destination}"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self(Arc::new(Inner {
            what: format!("{source} to {destination}"),
            bar,
            begun: Instant::now(),
            bytes: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            is_json: output.json,
            left_out: Mutex::default(),
        }))
    }

    /// The size of the whole is known.
    pub(super) fn expect(&self, bytes: u64) {
        if let Some(bar) = &self.0.bar {
            bar.set_length(bytes);
            bar.set_style(style(KNOWN));
        }
    }

    /// So many bytes more.
    pub(super) fn add(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let all = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.0.bar {
            Some(bar) => bar.set_position(all),
            None => {
                let lines = self.0.begun.elapsed().as_secs() / LINE_INTERVAL_S;
                if self.0.lines.swap(lines, Ordering::Relaxed) < lines && !self.0.is_json {
                    eprintln!("{}: {} so far", self.0.what, BinaryBytes(all));
                }
            }
        }
    }

    /// What was counted until now.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Says something that the copy leaves out.
    pub(super) fn note(&self, text: &str) {
        // A guest has chosen the names.
        let said = self.left_out().add(plain(text), self.0.is_json);
        match (said, &self.0.bar) {
            (None, _) => {}
            (Some(text), Some(bar)) => bar.suspend(|| eprintln!("vmint: {text}")),
            (Some(text), None) => eprintln!("vmint: {text}"),
        }
    }

    fn left_out(&self) -> MutexGuard<'_, LeftOut> {
        let left_out = self.0.left_out.lock();
        left_out.unwrap_or_else(PoisonError::into_inner)
    }

    /// It is done.
    pub(super) fn done(&self) -> Done {
        if let Some(bar) = &self.0.bar {
            bar.finish_and_clear();
        }
        let left_out = std::mem::take(&mut *self.left_out());
        Done {
            bytes: self.bytes(),
            took: self.0.begun.elapsed(),
            left_out: left_out.lines,
            left_out_count: left_out.count,
        }
    }

    /// Says what was done.
    pub(super) fn tell(&self, done: &Done) {
        let rate = done.bytes as f64 / done.took.as_secs_f64().max(1e-3);
        eprintln!(
            "{}: {} in {:.1} s, {}/s",
            self.0.what,
            BinaryBytes(done.bytes),
            done.took.as_secs_f64(),
            BinaryBytes(rate as u64)
        );
        if done.left_out_count > LEFT_OUT_MAX {
            eprintln!("{}: {} left out", self.0.what, done.left_out_count);
        }
    }
}

/// What a copy was. The bytes of a directory are those of its archive.
pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// With `--json`: the first of what was left out, a line each.
    pub(super) left_out: Vec<String>,
    /// How much of the source was left out.
    pub(super) left_out_count: usize,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid: a test makes it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_makes_us_leave_out_is_told_up_to_a_limit() {
        for is_json in [false, true] {
            let mut left_out = LeftOut::default();
            let said = (0..3 * LEFT_OUT_MAX)
                .filter_map(|nth| left_out.add(nth.to_string(), is_json))
                .count();
            let (told, kept) = if is_json {
                (0, LEFT_OUT_MAX)
            } else {
                (LEFT_OUT_MAX + 1, 0)
            };
            assert_eq!((said, left_out.lines.len()), (told, kept));
            assert_eq!(left_out.count, 3 * LEFT_OUT_MAX);
        }
    }

    #[test]
    fn the_styles_are_valid() {
        style(KNOWN);
        style(UNKNOWN);
    }
}
