//! What a template looks like at one moment.

use std::sync::Arc;
use std::time::Duration;

use vmint_factory::{StaleField, Staleness};

use super::builds::Build;
use crate::mint::{GenerationFacts, LiveGeneration};
use crate::spec::OnStale;
use crate::view::{BuildView, LastRoll, TemplateState};

/// When another try makes sense while a template is looked for or built: a build takes some seconds.
const RETRY_WHILE_BUILDING: Duration = Duration::from_secs(5);

/// What a template looks like at one moment. It is taken with each checkout: nothing in it is copied.
pub(crate) struct Snapshot {
    pub state: TemplateState,
    pub current: Option<Arc<dyn LiveGeneration>>,
    pub on_disk: Arc<[GenerationFacts]>,
    pub build: Option<Arc<Build>>,
    pub on_stale: OnStale,
    pub staleness: Arc<Staleness>,
    pub last_roll: Option<Arc<LastRoll>>,
    pub last_error: Option<Arc<str>>,
    /// How long the pause until the next try lasts yet.
    pub pause: Duration,
}

impl Snapshot {
    /// Why no clone can be made, where none can.
    pub(crate) fn unavailable(&self) -> Option<String> {
        if self.current.is_some() {
            return None;
        }
        let build = self.build.as_ref().map(|build| build.view());
        Some(match (&build, &self.last_error) {
            (
                Some(BuildView {
                    step: Some(step), ..
                }),
                _,
            ) => format!("it is being built ({})", step.as_str()),
            (Some(_), _) => "its build is about to begin".to_owned(),
            (None, Some(error)) => {
                format!(
                    "its build failed, and is tried again in {} s: {error}",
                    self.pause.as_secs()
                )
            }
            (None, None) => "it is being looked for on disk".to_owned(),
        })
    }

    /// Why no clone is handed out though there are some, where that is so.
    pub(crate) fn refused(&self) -> Option<String> {
        let is_refused = self.on_stale == OnStale::Refuse && self.current.is_some();
        let fields = &self.staleness.differing;
        (is_refused && !fields.is_empty()).then(|| {
            format!(
                "it is stale, and on_stale is \"refuse\": {}; rebuild it",
                differences(fields)
            )
        })
    }

    /// When another try makes sense.
    pub(crate) fn retry_after(&self) -> Duration {
        self.pause + RETRY_WHILE_BUILDING
    }
}

/// Fields that differ, on one line.
pub(super) fn differences(fields: &[StaleField]) -> String {
    let words: Vec<String> = fields
        .iter()
        .map(|stale| {
            format!(
                "{}: {} was, {} is",
                stale.field, stale.built_with, stale.now
            )
        })
        .collect();
    words.join("; ")
}
