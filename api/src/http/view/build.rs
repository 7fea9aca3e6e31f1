//! Builds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmint_cache::BuildView;

use super::time::{phases_ms, shown};

/// One build of a template.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Build {
    /// Its id.
    #[schema(example = "b1")]
    pub id: String,
    /// The template.
    #[schema(example = "default")]
    pub template: String,
    /// `running`, `succeeded` or `failed`.
    #[schema(example = "running", pattern = "^(running|succeeded|failed)$")]
    pub state: String,
    /// The step it is in, or ended in; null while it waits for its turn.
    #[schema(required = true, example = "booting")]
    pub step: Option<String>,
    /// What it made.
    #[schema(required = true)]
    pub generation: Option<String>,
    /// Why it failed.
    #[schema(required = true)]
    pub error: Option<String>,
    /// Generations that were only kept to go back to, and were dropped because the build needed their memory.
    pub dropped_generations: Vec<DroppedGeneration>,
    /// How long each phase took, milliseconds.
    pub phases_ms: BTreeMap<String, f64>,
    /// When it was asked for, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: jiff::Timestamp,
    /// When it ended, RFC 3339.
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<jiff::Timestamp>,
}

/// A generation that was only kept to go back to, and was dropped.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DroppedGeneration {
    /// Its template.
    #[schema(example = "default")]
    pub template: String,
    /// The generation.
    #[schema(example = "20250102-030405-bcdf")]
    pub generation: String,
}

/// Every build that is remembered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BuildList {
    /// As the service remembers them.
    pub builds: Vec<Build>,
}

impl From<vmint_cache::DroppedGeneration> for DroppedGeneration {
    fn from(dropped: vmint_cache::DroppedGeneration) -> Self {
        Self {
            template: dropped.template,
            generation: dropped.generation,
        }
    }
}

impl From<BuildView> for Build {
    fn from(view: BuildView) -> Self {
        Self {
            id: view.id,
            template: view.template,
            state: view.state.as_str().to_owned(),
            step: view.step.map(|step| step.as_str().to_owned()),
            generation: view.generation,
            error: view.error,
            dropped_generations: view.dropped.into_iter().map(Into::into).collect(),
            phases_ms: phases_ms(view.phases),
            started_at: shown(view.started_at),
            ended_at: view.ended_at.map(shown),
        }
    }
}
