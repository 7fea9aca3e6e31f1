//! The history of builds: those that run, and the last of those that ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use tokio::sync::watch;
use vmint_factory::BuildStep;

use crate::mint::GenerationFacts;
use crate::sync::lock;
use crate::view::{BuildState, BuildView, DroppedGeneration};

/// Builds that are remembered. An operator looks at the last few; each is some hundred bytes, or the console of a
/// guest that did not boot.
const BUILDS_MAX: usize = 100;

/// One build.
pub(crate) struct Build {
    id: String,
    view: watch::Sender<BuildView>,
}

impl Build {
    fn begin(template: &str) -> Arc<Self> {
        let id = random_id();
        let view = BuildView {
            id: id.clone(),
            template: template.to_owned(),
            state: BuildState::Running,
            step: None,
            generation: None,
            error: None,
            phases: Vec::new(),
            dropped: Vec::new(),
            started_at: Timestamp::now(),
            ended_at: None,
        };
        Arc::new(Self {
            id,
            view: watch::Sender::new(view),
        })
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What it looks like.
    pub(crate) fn view(&self) -> BuildView {
        self.view.borrow().clone()
    }

    /// It begins a step.
    pub(crate) fn enter(&self, step: BuildStep) {
        self.view.send_modify(|view| view.step = Some(step));
    }

    /// Kept generations were dropped for it.
    pub(crate) fn dropped(&self, generations: impl IntoIterator<Item = DroppedGeneration>) {
        self.view
            .send_modify(|view| view.dropped.extend(generations));
    }

    /// It made a generation.
    pub(crate) fn succeed(&self, facts: &GenerationFacts) {
        let (generation, phases): (_, Vec<(String, Duration)>) =
            (facts.id.to_string(), facts.build_phases.clone());
        self.view.send_modify(|view| {
            view.generation = Some(generation);
            view.phases = phases;
            end(view, BuildState::Succeeded);
        });
    }

    /// It made nothing.
    pub(crate) fn fail(&self, why: String) {
        self.view.send_modify(|view| {
            view.error = Some(why);
            end(view, BuildState::Failed);
        });
    }

    /// Waits for its end. It has none of its own only while its keeper lives, which ends each build that it began.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn ended(&self) -> BuildView {
        let mut views = self.view.subscribe();
        let ended = views
            .wait_for(|view| view.state != BuildState::Running)
            .await;
        ended.map_or_else(|_| self.view(), |view| view.clone())
    }
}

fn end(view: &mut BuildView, state: BuildState) {
    view.state = state;
    view.ended_at = Some(Timestamp::now());
}

/// Builds are named by the moment and by chance, as generations are: sorted by name they are sorted by age.
fn random_id() -> String {
    let tail: u32 = rand::rng().random();
    format!("{}-{tail:08x}", Timestamp::now().strftime("%Y%m%d-%H%M%S"))
}

/// All builds that are remembered.
#[derive(Default)]
pub(crate) struct Builds(Mutex<VecDeque<Arc<Build>>>);

impl Builds {
    /// Begins one. The oldest that has ended is forgotten when there are too many.
    pub(crate) fn begin(&self, template: &str) -> Arc<Build> {
        let build = Build::begin(template);
        let mut builds = lock(&self.0);
        builds.push_back(Arc::clone(&build));
        if builds.len() > BUILDS_MAX
            && let Some(oldest) = builds
                .iter()
                .position(|build| build.view.borrow().state != BuildState::Running)
        {
            builds.remove(oldest);
        }
        build
    }

    /// One of them.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Build>> {
        lock(&self.0).iter().find(|build| build.id == id).cloned()
    }

    /// All of them, the newest first.
    pub(crate) fn views(&self) -> Vec<BuildView> {
        lock(&self.0)
            .iter()
            .rev()
            .map(|build| build.view())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_builds_are_forgotten_and_running_ones_never() {
        let builds = Builds::default();
        let running = builds.begin("t").view().id;
        for _ in 0..2 * BUILDS_MAX {
            builds.begin("t").fail("no".to_owned());
        }
        assert_eq!(builds.views().len(), BUILDS_MAX);
        assert!(builds.get(&running).is_some());
    }
}
