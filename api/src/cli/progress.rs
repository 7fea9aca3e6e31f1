//! Long work on a terminal turns; elsewhere each step is a line.

use std::cell::RefCell;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;

/// How often the sign of life moves.
const TICK: Duration = Duration::from_millis(100);

/// The progress of one piece of work, on standard error.
pub(super) struct Progress {
    work: String,
    bar: Option<ProgressBar>,
    /// With `--json`, plain lines would stand between errors that are JSON.
    is_silent: bool,
    last: RefCell<String>,
}

impl Progress {
    /// Begins.
    pub(super) fn start(output: Output, work: &str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]");
            let bar = ProgressBar::new_spinner()
                .with_style(style.expect("the template is valid: a test makes it"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            work: work.to_owned(),
            bar,
            is_silent: output.json,
            last: RefCell::default(),
        }
    }

    /// Says which step the work is in; the same step again says nothing.
    pub(super) fn step(&self, step: &str) {
        if *self.last.borrow() == step {
            return;
        }
        step.clone_into(&mut self.last.borrow_mut());
        let line = format!("{}: {step}", self.work);
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None if self.is_silent => {}
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_is_valid() {
        assert!(ProgressStyle::with_template("{spinner} {msg} [{elapsed}]").is_ok());
    }
}
