//! Generations without files.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use vmint_cache::{GenerationFacts, LiveGeneration, ProcessControl, Size, SizeRange};
use vmint_factory::{Accel, GenerationId, Phases, TemplateSpec};

use super::script::Launch;

/// What is true of a generation, also when nobody holds it.
pub(crate) struct GenerationState {
    pub facts: GenerationFacts,
    /// What it was built from.
    pub recipe: u32,
    /// And from which description, where that is known.
    pub made_of: Option<TemplateSpec>,
    /// How its clones come up, where the script's word does not hold for them.
    pub launch: Option<Launch>,
    pub dropped: AtomicUsize,
}

impl GenerationState {
    pub(super) fn new(
        id: GenerationId,
        (recipe, made_of): (u32, Option<TemplateSpec>),
        launch: Option<Launch>,
    ) -> Self {
        let size = |vcpus, memory_mib| Size { vcpus, memory_mib };
        let sizes = SizeRange {
            least: size(1, 256),
            most: size(4, 2048),
            fixed: None,
            refuses_vcpus: None,
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
            process_control: Some(ProcessControl::Cgroup),
        };
        let dropped = AtomicUsize::new(0);
        Self {
            facts,
            recipe,
            made_of,
            launch,
            dropped,
        }
    }
}

/// Somebody's hold on one.
pub(super) struct Generation(pub Arc<GenerationState>);

impl LiveGeneration for Generation {
    fn facts(&self) -> &GenerationFacts {
        &self.0.facts
    }
    fn memory_bytes_on_disk(&self) -> u64 {
        1 << 20
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// What the fake knows of a generation.
pub(super) fn state_of(generation: &Arc<dyn LiveGeneration>) -> &Arc<GenerationState> {
    let made = generation.as_any().downcast_ref::<Generation>();
    &made.unwrap().0
}
