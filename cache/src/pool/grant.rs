//! A clone on its way from the pool to a checkout.
//!
//! ```text
//!             taken                  committed
//!  granted ----------> being prepared ---------> handed over
//!     |                      |
//!     | dropped              | dropped: untouched -> back to ready;  touched -> ended
//!     v
//!  back to ready
//! ```
//! Whoever drops a grant at any point, in an answer that nobody reads as well, gives the clone back.

use std::io;
use std::sync::Arc;

use super::core::Event;
use super::message::{LeaseTimes, Outbox};
use crate::mint::{GenerationFacts, LiveClone, LiveGeneration, RecordState};
use crate::sandbox::Sandbox;
use crate::view::{SandboxView, Source};

/// A clone that was leased to a checkout, and not yet handed over.
pub(crate) struct Grant {
    sandbox: Arc<Sandbox>,
    outbox: Outbox,
    generation: Arc<dyn LiveGeneration>,
    source: Source,
    times: LeaseTimes,
    is_paused: bool,
    care: Care,
}

/// What must be done with the clone of a grant that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// It is as it was.
    Untouched,
    /// Only its record says that it is leased.
    Recorded,
    /// Something in it is different.
    Touched,
    /// It was handed over.
    None,
}

impl Grant {
    pub(super) fn new(
        sandbox: Arc<Sandbox>,
        outbox: Outbox,
        generation: Arc<dyn LiveGeneration>,
        source: Source,
        times: LeaseTimes,
        is_paused: bool,
    ) -> Self {
        Self {
            sandbox,
            outbox,
            generation,
            source,
            times,
            is_paused,
            care: Care::Untouched,
        }
    }

    /// The virtual machine.
    pub(super) fn vm(&self) -> &Arc<dyn LiveClone> {
        self.sandbox.vm()
    }

    /// The sandbox that it becomes.
    pub(crate) fn sandbox(&self) -> Arc<Sandbox> {
        Arc::clone(&self.sandbox)
    }

    /// Its generation.
    pub(super) fn generation(&self) -> &GenerationFacts {
        self.generation.facts()
    }

    /// Where it came from.
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// When its lease began and when it ends.
    pub(super) fn times(&self) -> LeaseTimes {
        self.times
    }

    /// Whether its virtual CPUs stand still.
    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Something in the clone is about to be changed: nobody else may get it, a later service included.
    ///
    /// # Errors
    /// When that cannot be written down. The clone is nobody's all the same.
    pub(super) fn touch(&mut self) -> io::Result<()> {
        let was_touched = self.care == Care::Touched;
        self.spoil();
        if was_touched {
            return Ok(());
        }
        self.vm().record(RecordState::Preparing)
    }

    /// The clone is fit for nobody.
    pub(super) fn spoil(&mut self) {
        self.care = Care::Touched;
    }

    /// The clone's record says, or may say, that it is leased.
    pub(super) fn recorded(&mut self) {
        if self.care == Care::Untouched {
            self.care = Care::Recorded;
        }
    }

    /// Hands the clone over.
    pub(crate) fn commit(mut self, view: SandboxView) {
        self.care = Care::None;
        self.sandbox.hand_over(view);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let clone = self.sandbox.clone_key();
        match self.care {
            Care::None => {}
            Care::Untouched => self.outbox.post(Event::Returned { clone }),
            Care::Recorded if self.vm().record(RecordState::Ready).is_ok() => {
                self.outbox.post(Event::Returned { clone });
            }
            Care::Recorded | Care::Touched => self.outbox.post(Event::Spoiled { clone }),
        }
    }
}
