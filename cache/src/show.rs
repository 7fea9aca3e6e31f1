//! What the cache shows of itself: the half of [`Cache`] that only reads.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use vmint_factory::Phase;

use crate::cache::Cache;
use crate::entry::Template;
use crate::error::{UnknownSandbox, UnknownTemplate};
use crate::mint::GenerationFacts;
use crate::template::Snapshot;
use crate::view::{
    BuildView, GenerationView, MemoryLevel, PoolLevel, PoolView, SandboxView, TemplateMemory,
    TemplateView,
};

impl Cache {
    /// All templates, in the order of the configuration.
    #[must_use]
    pub fn templates(&self) -> Vec<TemplateView> {
        self.all().iter().map(|one| one.view()).collect()
    }

    /// One template.
    pub fn template(&self, name: &str) -> Result<TemplateView, UnknownTemplate> {
        Ok(self.find(name)?.view())
    }

    /// Whether there is such a template.
    #[must_use]
    pub fn has_template(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The builds that run and the last of those that ended, the newest first.
    #[must_use]
    pub fn builds(&self) -> Vec<BuildView> {
        self.node().builds.views()
    }

    /// One build.
    #[must_use]
    pub fn build(&self, id: &str) -> Option<BuildView> {
        self.node().builds.get(id).map(|build| build.view())
    }

    /// All pools, in the order of the configuration.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolView> {
        self.all()
            .iter()
            .map(|template| template.pool.view())
            .collect()
    }

    /// What all pools come to, without their clones, in the order of the configuration.
    #[must_use]
    pub fn pool_levels(&self) -> Vec<PoolLevel> {
        self.all()
            .iter()
            .map(|template| template.pool.level())
            .collect()
    }

    /// One pool.
    pub fn pool(&self, template: &str) -> Result<PoolView, UnknownTemplate> {
        Ok(self.find(template)?.pool.view())
    }

    /// All leased sandboxes, or those of one template, in the order of their leases.
    #[must_use]
    pub fn sandboxes(&self, template: Option<&str>) -> Vec<SandboxView> {
        self.node().sandboxes.views(template, None)
    }

    /// Those of them that belong to one user of the host.
    #[must_use]
    pub fn sandboxes_of(&self, owner_uid: u32, template: Option<&str>) -> Vec<SandboxView> {
        self.node().sandboxes.views(template, Some(owner_uid))
    }

    /// The user of the host that a leased sandbox belongs to; `None` when there is no such sandbox.
    #[must_use]
    pub fn owner_of(&self, id: &str) -> Option<u32> {
        self.node().sandboxes.get(id).ok()?.sandbox.owner_uid()
    }

    /// One leased sandbox.
    pub fn sandbox(&self, id: &str) -> Result<SandboxView, UnknownSandbox> {
        let found = self.node().sandboxes.get(id)?;
        found.sandbox.view().ok_or_else(|| UnknownSandbox::of(id))
    }

    /// The memory of every template and its clones: what the clones have as it was measured last. It blocks for a system
    /// call for each generation.
    #[must_use]
    pub fn memory(&self) -> Vec<TemplateMemory> {
        let private = self.node().memory.private_bytes();
        self.all().iter().map(|one| one.memory(&private)).collect()
    }

    /// The memory of the whole node, as it is admitted.
    #[must_use]
    pub fn memory_level(&self) -> MemoryLevel {
        self.node().memory.level()
    }
}

impl Template {
    pub(crate) fn view(&self) -> TemplateView {
        let snapshot = self.status.snapshot();
        let current = snapshot
            .current
            .as_ref()
            .map(|generation| generation.facts().id.to_string());
        let generations = self.generations(&snapshot);
        TemplateView {
            name: self.status.name().to_owned(),
            state: snapshot.state,
            current,
            generations,
            build: snapshot.build.map(|build| build.id().to_owned()),
            stale: !snapshot.staleness.differing.is_empty(),
            stale_fields: snapshot.staleness.differing.clone(),
            unverified_fields: snapshot.staleness.unverified.clone(),
            last_roll: snapshot.last_roll.as_deref().cloned(),
            last_error: snapshot.last_error.as_deref().map(str::to_owned),
        }
    }

    /// The current generation, then those beside it that are on disk or in use, the newest first.
    fn generations(&self, snapshot: &Snapshot) -> Vec<GenerationView> {
        let mut known = BTreeMap::new();
        for facts in snapshot.on_disk.iter() {
            known.insert(facts.id.to_string(), view(facts, 0));
        }
        for (generation, clones) in self.pool.generations() {
            let facts = generation.facts();
            known.insert(facts.id.to_string(), view(facts, clones));
        }
        let current = snapshot.current.as_ref().map(|one| one.facts());
        let current = current.map(|facts| {
            let known = known.remove(facts.id.as_str());
            known.unwrap_or_else(|| view(facts, 0))
        });
        // Their names sort by age.
        current
            .into_iter()
            .chain(known.into_values().rev())
            .collect()
    }

    fn memory(&self, private: &HashMap<String, u64>) -> TemplateMemory {
        let generations = self.pool.generations();
        let shared = generations
            .iter()
            .map(|(generation, _)| generation.memory_bytes_on_disk())
            .sum();
        TemplateMemory {
            template: self.status.name().to_owned(),
            template_bytes: shared,
            clone_private_bytes: private.get(self.status.name()).copied().unwrap_or_default(),
        }
    }
}

fn view(facts: &GenerationFacts, clones: usize) -> GenerationView {
    GenerationView {
        generation: facts.id.to_string(),
        built_at: facts.built_at,
        accel: facts.accel,
        qemu_version: facts.qemu_version.clone(),
        memory_mib: facts.sizes.least.memory_mib,
        clones,
        phases: generation_phases(facts),
        report: facts.report.clone(),
        process_control: facts.process_control,
    }
}

/// Where the time of a generation went: the phases of its cold boot and its first command, then the build's steps.
fn generation_phases(facts: &GenerationFacts) -> Vec<(String, Duration)> {
    let boot = Phase::ALL.map(|phase| (phase.as_str().to_owned(), facts.boot_phases.get(phase)));
    let mut phases: Vec<_> = boot
        .into_iter()
        .filter(|(_, took)| !took.is_zero())
        .collect();
    phases.extend(facts.first_exec.map(|took| ("first_exec".to_owned(), took)));
    let steps = facts
        .build_phases
        .iter()
        .filter(|(step, _)| !phases.iter().any(|(name, _)| name == step));
    let steps: Vec<_> = steps.cloned().collect();
    phases.extend(steps);
    phases
}
