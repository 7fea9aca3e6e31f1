//! A generation that holds the memory of its file: whoever has it, has that counted.

use std::any::Any;
use std::sync::Arc;

use super::ledger::FilePermit;
use crate::mint::{GenerationFacts, LiveGeneration};

/// A generation, and the right to its memory, which others that stand for the same generation share. It goes after the
/// last of them.
pub(super) struct Counted {
    generation: Arc<dyn LiveGeneration>,
    _memory: Arc<FilePermit>,
}

impl Counted {
    pub(super) fn hold(
        generation: Arc<dyn LiveGeneration>,
        memory: Arc<FilePermit>,
    ) -> Arc<dyn LiveGeneration> {
        Arc::new(Self {
            generation,
            _memory: memory,
        })
    }
}

impl LiveGeneration for Counted {
    fn facts(&self) -> &GenerationFacts {
        self.generation.facts()
    }

    fn memory_bytes_on_disk(&self) -> u64 {
        self.generation.memory_bytes_on_disk()
    }

    /// That of the generation itself: its maker knows that one.
    fn as_any(&self) -> &dyn Any {
        self.generation.as_any()
    }
}
