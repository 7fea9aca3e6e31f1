//! Generations without files.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use vmint_cache::{GenerationFacts, LiveGeneration, Size, SizeRange};
use vmint_factory::{Accel, GenerationId, Phases};

/// What became of a generation.
#[derive(Default)]
pub(crate) struct GenerationState {
    pub retired: AtomicUsize,
    pub dropped: AtomicUsize,
}

pub(super) struct Generation {
    facts: GenerationFacts,
    state: Arc<GenerationState>,
}

impl Generation {
    pub(super) fn new(id: GenerationId, state: Arc<GenerationState>) -> Self {
        let size = |vcpus, memory_mib| Size { vcpus, memory_mib };
        let sizes = SizeRange {
            least: size(1, 256),
            most: size(4, 2048),
            fixed: None,
        };
        let facts = GenerationFacts {
            id,
            built_at: Timestamp::now(),
            accel: Accel::Tcg,
            qemu_version: "10.0.0".to_owned(),
            sizes,
            boot_phases: Phases::default(),
            build_phases: vec![("booting".to_owned(), Duration::from_secs(2))],
            first_exec: Some(Duration::from_millis(3)),
            report: serde_json::json!({"canaries": 2}),
        };
        Self { facts, state }
    }
}

impl LiveGeneration for Generation {
    fn facts(&self) -> &GenerationFacts {
        &self.facts
    }
    fn memory_bytes_on_disk(&self) -> u64 {
        1 << 20
    }
    fn retire(&self) {
        self.state.retired.fetch_add(1, Ordering::SeqCst);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.state.dropped.fetch_add(1, Ordering::SeqCst);
    }
}
