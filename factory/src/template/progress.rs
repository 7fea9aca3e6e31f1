//! What a build is doing.

use std::fmt;
use std::sync::Arc;

/// A step of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStep {
    /// Room is made for the memory.
    Reserving,
    /// The guest boots.
    Booting,
    /// The guest has answered.
    Ready,
    /// The warm-up commands run.
    Warming,
    /// The device state is saved.
    Saving,
    /// Canaries show that clones work.
    Verifying,
    /// The generation becomes the current one.
    Publishing,
}

impl BuildStep {
    /// The step as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserving => "reserving",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Warming => "warming",
            Self::Saving => "saving",
            Self::Verifying => "verifying",
            Self::Publishing => "publishing",
        }
    }
}

/// Tells whoever wants to know what a build is doing.
#[derive(Clone, Default)]
pub struct BuildProgress(Option<Arc<dyn Fn(BuildStep) + Send + Sync>>);

impl BuildProgress {
    /// Calls `listener` at the beginning of each step. It must not block.
    pub fn new(listener: impl Fn(BuildStep) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn step(&self, step: BuildStep) {
        if let Some(listener) = &self.0 {
            listener(step);
        }
    }
}

impl fmt::Debug for BuildProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuildProgress")
    }
}
