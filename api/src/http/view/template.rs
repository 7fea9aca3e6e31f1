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
        Self {
            name: view.name,
            state: view.state.as_str().to_owned(),
            current: view.current,
            generations: view.generations.into_iter().map(Generation::from).collect(),
            build: view.build,
            stale: view.stale,
            stale_fields: view.stale_fields.into_iter().map(stale).collect(),
            last_error: view.last_error,
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
        }
    }
}
