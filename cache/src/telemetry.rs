//! What the cache reports while it works. Whoever exports metrics implements it; the calls must return at once.

use std::time::Duration;

use vmint_factory::{Phase, Phases};

use crate::view::Source;

/// The way in which a virtual machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartPath {
    /// The boot of a template.
    Cold,
    /// A clone.
    Clone,
}

impl StartPath {
    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Clone => "clone",
        }
    }
}

/// Takes measurements. `template` is always the name of a configured template, so it is safe as a label.
pub trait Telemetry: Send + Sync + 'static {
    /// A checkout ended: `outcome` is `ok` or the code of its error; `source` is `None` when it failed. One whose
    /// client hung up, or that named no known template, is not reported.
    fn checkout(
        &self,
        template: &str,
        source: Option<Source>,
        outcome: &'static str,
        took: Duration,
    );
    /// A virtual machine started.
    fn startup(&self, template: &str, path: StartPath, phases: &Phases);
    /// The first command of a sandbox, or of a cold-booted template, was answered.
    fn first_exec(&self, template: &str, path: StartPath, took: Duration);
    /// A command ended: `outcome` is `ok` or the code of its error.
    fn exec(&self, template: &str, outcome: &'static str, took: Duration);
    /// A clone could not be made.
    fn clone_failed(&self, template: &str, phase: Phase);
    /// A build ended: `outcome` is `ok` or the code of its error.
    fn build(&self, template: &str, outcome: &'static str, took: Duration);
}
