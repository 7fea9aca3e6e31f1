//! What is known of one template, and what is to be done for it. The keeper does it; requests and views only touch
//! this, and never wait.
//!
//! ```text
//!              found                     damage
//!  looking ------------> sound -----------------------> damaged
//!     |                    ^  ^                            |
//!     | nothing sound      |  | built                      | by itself, or asked for
//!     v                    |  +---------- building <-------+
//!  building ---------------+     ^           |
//!     |  failed: a pause, longer each time,  | failed: as before, and again after a pause
//!     +---------- and again -----------------+
//! ```
//! A template has at most one build at a time, and keeps the generation that it has until there is a better one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vmint_factory::{GenerationId, MachineType, StaleField, TemplateSpec};

use super::builds::{Build, Builds};
use crate::error::RebuildError;
use crate::mint::LiveGeneration;
use crate::spec::stale_fields;
use crate::sync::lock;
use crate::view::{BuildView, TemplateState};

/// When another try makes sense while a template is looked for or built: a build takes some seconds.
const RETRY_WHILE_BUILDING: Duration = Duration::from_secs(5);

/// One template.
pub(crate) struct Status {
    name: String,
    /// What is wanted. It changes with `inner` locked.
    spec: watch::Sender<Arc<TemplateSpec>>,
    inner: Mutex<Inner>,
    changed: Notify,
    removed: CancellationToken,
    left: CancellationToken,
}

#[derive(Default)]
struct Inner {
    current: Option<Arc<dyn LiveGeneration>>,
    /// What the current generation was made of.
    made_of: Option<Arc<TemplateSpec>>,
    /// A build is to begin though there is a sound generation: it is not what is wanted any more.
    is_outdated: bool,
    damage: Option<String>,
    build: Option<Arc<Build>>,
    stale_fields: Vec<StaleField>,
    last_error: Option<String>,
    retry_at: Option<Instant>,
    stops: bool,
}

impl Inner {
    fn is_sound(&self) -> bool {
        self.current.is_some() && self.damage.is_none()
    }

    fn state(&self) -> TemplateState {
        if self.is_sound() {
            TemplateState::Ready
        } else if self.build.is_none() && self.retry_at.is_some() {
            TemplateState::Failed
        } else {
            TemplateState::Building
        }
    }
}

/// What the keeper is to do next.
pub(super) enum Work {
    /// This build.
    Build(Arc<Build>),
    /// Nothing, until something changes or this moment comes.
    Rest { until: Option<Instant> },
}

/// What a template looks like at one moment.
pub(crate) struct Snapshot {
    pub state: TemplateState,
    pub current: Option<Arc<dyn LiveGeneration>>,
    pub build: Option<BuildView>,
    pub stale_fields: Vec<StaleField>,
    pub last_error: Option<String>,
    /// How long the pause until the next try lasts yet.
    pub pause: Duration,
}

impl Snapshot {
    /// Why no clone can be made, where none can.
    pub(crate) fn unavailable(&self) -> Option<String> {
        if self.current.is_some() {
            return None;
        }
        Some(match (&self.build, &self.last_error) {
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

    /// When another try makes sense.
    pub(crate) fn retry_after(&self) -> Duration {
        self.pause + RETRY_WHILE_BUILDING
    }
}

impl Status {
    /// A template of which nothing is known yet.
    pub(crate) fn new(spec: TemplateSpec) -> Arc<Self> {
        Arc::new(Self {
            name: spec.name.clone(),
            spec: watch::Sender::new(Arc::new(spec)),
            inner: Mutex::default(),
            changed: Notify::new(),
            removed: CancellationToken::new(),
            left: CancellationToken::new(),
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it looks like.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let inner = lock(&self.inner);
        Snapshot {
            state: inner.state(),
            current: inner.current.clone(),
            build: inner.build.as_ref().map(|build| build.view()),
            stale_fields: inner.stale_fields.clone(),
            last_error: inner.last_error.clone(),
            pause: inner.retry_at.map_or(Duration::ZERO, |at| {
                at.saturating_duration_since(Instant::now())
            }),
        }
    }

    /// Asks for a build.
    pub(crate) fn rebuild(&self, builds: &Builds) -> Result<BuildView, RebuildError> {
        let mut inner = lock(&self.inner);
        if self.removed.is_cancelled() {
            let name = self.name.clone();
            return Err(RebuildError::UnknownTemplate { name });
        }
        if inner.stops {
            return Err(RebuildError::ShuttingDown);
        }
        if let Some(running) = &inner.build {
            return Err(RebuildError::AlreadyRunning {
                build: running.view().id,
            });
        }
        let build = builds.begin(&self.name);
        inner.build = Some(Arc::clone(&build));
        self.changed.notify_one();
        Ok(build.view())
    }

    /// Something else is wanted from now on. Where the current generation differs from it, a build begins; one that runs
    /// makes what is not wanted any more, and begins anew.
    pub(crate) fn want(&self, spec: TemplateSpec) {
        let spec = Arc::new(spec);
        let mut inner = lock(&self.inner);
        let fields = inner
            .made_of
            .as_ref()
            .map_or_else(Vec::new, |was| stale_fields(was, &spec));
        inner.is_outdated = !fields.is_empty() || inner.build.is_some();
        if inner.made_of.is_some() {
            inner.stale_fields = fields;
        }
        inner.retry_at = None;
        self.spec.send_replace(spec);
        self.changed.notify_one();
    }

    /// What machine its clones are: those of the current generation, where there is one.
    pub(crate) fn machine(&self) -> MachineType {
        let inner = lock(&self.inner);
        let made_of = inner.made_of.as_ref();
        made_of.map_or_else(|| self.spec.borrow().machine, |spec| spec.machine)
    }

    /// The template is no more: its keeper leaves.
    pub(crate) fn remove(&self) {
        lock(&self.inner).stops = true;
        self.removed.cancel();
    }

    /// Cancelled once the template is no more.
    pub(super) fn removed(&self) -> &CancellationToken {
        &self.removed
    }

    /// Cancelled once its keeper has left: it touches nothing on disk any more.
    pub(crate) fn left(&self) -> &CancellationToken {
        &self.left
    }

    /// What is wanted now, and word of it when something else is. Whatever is begun with it is up to date.
    pub(super) fn wanted(&self) -> (Arc<TemplateSpec>, watch::Receiver<Arc<TemplateSpec>>) {
        let mut inner = lock(&self.inner);
        inner.is_outdated = false;
        let later = self.spec.subscribe();
        let now = Arc::clone(&later.borrow());
        (now, later)
    }

    /// Clones cannot be made from this generation. When it is the current one, it will be built anew.
    pub(crate) fn report_damage(&self, generation: &GenerationId, reason: &str) {
        let mut inner = lock(&self.inner);
        let is_current = inner
            .current
            .as_ref()
            .is_some_and(|current| current.facts().id == *generation);
        if is_current {
            inner.damage = Some(reason.to_owned());
            self.changed.notify_one();
        }
    }

    /// No builds begin any more.
    pub(crate) fn stop(&self) {
        lock(&self.inner).stops = true;
    }

    /// What the keeper is to do now. A build that is needed and not asked for begins here.
    pub(super) fn next_work(&self, builds: &Builds) -> Work {
        let mut inner = lock(&self.inner);
        if let Some(build) = &inner.build {
            return Work::Build(Arc::clone(build));
        }
        let is_wanted = inner.is_outdated || !inner.is_sound();
        if !is_wanted || inner.stops {
            return Work::Rest { until: None };
        }
        if inner.retry_at.is_some_and(|at| at > Instant::now()) {
            return Work::Rest {
                until: inner.retry_at,
            };
        }
        let build = builds.begin(&self.name);
        inner.build = Some(Arc::clone(&build));
        Work::Build(build)
    }

    /// Waits until there may be other work.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is on disk does not match what is wanted.
    pub(super) fn found_stale(&self, fields: Vec<StaleField>) {
        lock(&self.inner).stale_fields = fields;
    }

    /// There is a current generation, made of this. Returns the one before it.
    pub(super) fn set_current(
        &self,
        generation: Arc<dyn LiveGeneration>,
        made_of: Arc<TemplateSpec>,
    ) -> Option<Arc<dyn LiveGeneration>> {
        let mut inner = lock(&self.inner);
        inner.damage = None;
        // Something else may be wanted since its making began.
        inner.stale_fields = stale_fields(&made_of, &self.spec.borrow());
        inner.is_outdated = !inner.stale_fields.is_empty();
        inner.made_of = Some(made_of);
        inner.last_error = None;
        inner.retry_at = None;
        inner.current.replace(generation)
    }

    /// The build has ended.
    pub(super) fn build_ended(&self) {
        lock(&self.inner).build = None;
    }

    /// The build has failed. It is tried again after a pause, unless there is a sound generation. Returns whether.
    pub(super) fn build_failed(&self, error: &str, pause: Duration) -> bool {
        let mut inner = lock(&self.inner);
        inner.build = None;
        inner.last_error = Some(error.to_owned());
        inner.retry_at = (!inner.is_sound()).then(|| Instant::now() + pause);
        inner.retry_at.is_some()
    }

    /// Lets go of the generation, if there is one: nothing is made any more.
    pub(super) fn forget_current(&self) {
        lock(&self.inner).current = None;
    }
}
