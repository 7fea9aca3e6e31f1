//! Templates and their generations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmint_cache::{GenerationView, TemplateView};

use super::time::{phases_ms, shown};

/// One template.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Template {
    /// Its name.
    #[schema(example = "default")]
    pub name: String,
    /// `ready` (it can be cloned), `building` or `failed`.
    #[schema(example = "ready", pattern = "^(ready|building|failed)$")]
    pub state: String,
    /// The generation that new clones are made from.
    #[schema(required = true, example = "20250102-030405-bcdf")]
    pub current: Option<String>,
    /// The current generation, then those beside it that are on disk or in use, the newest first.
    pub generations: Vec<Generation>,
    /// The build that runs.
    #[schema(required = true, example = "b1")]
    pub build: Option<String>,
    /// Whether the current generation is not what would be built now.
    pub stale: bool,
    /// In which fields.
    pub stale_fields: Vec<StaleField>,
    /// The fields that cannot be compared at present, because a file cannot be read. For them alone nothing is rebuilt, and
    /// nothing refused.
    pub unverified_fields: Vec<UnverifiedField>,
    /// The last roll of its pool to another generation; null where there was none since the service has started.
    #[schema(required = true)]
    pub last_roll: Option<LastRoll>,
    /// Why the last build failed, or why its generation was given up; null after a success.
    #[schema(required = true)]
    pub last_error: Option<String>,
}

/// One generation of a template.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Generation {
    /// Its id.
    #[schema(example = "20250102-030405-bcdf")]
    pub generation: String,
    /// When it was built, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub built_at: jiff::Timestamp,
    /// What ran its virtual CPUs: `kvm` or `tcg`.
    #[schema(example = "tcg")]
    pub accel: String,
    /// The QEMU that saved it.
    #[schema(example = "10.0.2")]
    pub qemu_version: String,
    /// Memory, MiB.
    #[schema(example = 256)]
    pub memory_mib: u64,
    /// Living clones of it.
    pub clones: usize,
    /// Milliseconds: the phases of its cold boot (`total` is all of them), `first_exec` (until the first command after it
    /// was answered), and the steps of its build.
    pub phases_ms: BTreeMap<String, f64>,
    /// What its canary clones proved.
    #[schema(value_type = Object)]
    pub report: serde_json::Value,
    /// How its guest keeps processes apart: `cgroup`, or `descendants` where its kernel has no control groups of version 2;
    /// null in a generation of a version that did not record it.
    #[schema(
        required = true,
        example = "cgroup",
        pattern = "^(cgroup|descendants)$"
    )]
    pub process_control: Option<String>,
}

/// One difference between a generation and what would be built now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StaleField {
    /// Which field.
    #[schema(example = "kernel")]
    pub field: String,
    /// Its value when the template was built.
    pub built_with: String,
    /// Its value now.
    pub now: String,
}

/// A field that cannot be compared at present with what would be built now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UnverifiedField {
    /// Which field.
    #[schema(example = "qemu_digest")]
    pub field: String,
    /// Why it cannot be compared.
    #[schema(
        example = "/usr/bin/qemu-system-x86_64 cannot be read: No such file or directory (os error 2)"
    )]
    pub reason: String,
}

/// The last roll of a template's pool from one generation to another.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LastRoll {
    /// The generation before.
    #[schema(example = "20250102-030405-bcdf")]
    pub from: String,
    /// The new one.
    #[schema(example = "20250102-040506-ghjk")]
    pub to: String,
    /// `running`, `rolled` (every warm clone is of the new generation) or `rolled_back` (the new generation was given up, and
    /// `from` is current again).
    #[schema(example = "rolled", pattern = "^(running|rolled|rolled_back)$")]
    pub outcome: String,
    /// Why it was rolled back, or what it is for where it is for no new build; else null.
    #[schema(required = true)]
    pub reason: Option<String>,
}

/// Every template.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TemplateList {
    /// In the order of the configuration.
    pub templates: Vec<Template>,
}

impl From<TemplateView> for Template {
    fn from(view: TemplateView) -> Self {
        let stale = |field: vmint_cache::StaleField| StaleField {
            field: field.field,
            built_with: field.built_with,
            now: field.now,
        };
        let unverified = |field: vmint_cache::UnverifiedField| UnverifiedField {
            field: field.field,
            reason: field.reason,
        };
        Self {
            name: view.name,
            state: view.state.as_str().to_owned(),
            current: view.current,
            generations: view.generations.into_iter().map(Generation::from).collect(),
            build: view.build,
            stale: view.stale,
            stale_fields: view.stale_fields.into_iter().map(stale).collect(),
            unverified_fields: view.unverified_fields.into_iter().map(unverified).collect(),
            last_roll: view.last_roll.map(LastRoll::from),
            last_error: view.last_error,
        }
    }
}

impl From<vmint_cache::LastRoll> for LastRoll {
    fn from(roll: vmint_cache::LastRoll) -> Self {
        Self {
            from: roll.from,
            to: roll.to,
            outcome: roll.outcome.as_str().to_owned(),
            reason: roll.reason,
        }
    }
}

impl From<GenerationView> for Generation {
    fn from(view: GenerationView) -> Self {
        Self {
            generation: view.generation,
            built_at: shown(view.built_at),
            accel: view.accel.as_str().to_owned(),
            qemu_version: view.qemu_version,
            memory_mib: view.memory_mib,
            clones: view.clones,
            phases_ms: phases_ms(view.phases),
            report: view.report,
            process_control: view.process_control.map(|by| by.as_str().to_owned()),
        }
    }
}
