//! What is known of one template, and what is to be done for it. The keeper does it; requests, views and the pool only
//! touch this, and never wait.
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
//! A template has at most one build at a time, and keeps the generation that it has until there is a better one. A sound
//! one is built anew by itself when it only stands in for a damaged one, or is stale, and `on_stale` says so, and nobody
//! has gone back to it by hand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vmint_factory::{GenerationId, StaleField, Staleness, TemplateSpec, UnverifiedField};

use super::builds::{Build, Builds};
use super::snapshot::Snapshot;
use crate::error::{RebuildError, RollbackError, UnknownTemplate};
use crate::mint::{GenerationFacts, LiveGeneration};
use crate::pool::Report;
use crate::spec::{OnStale, stale_fields};
use crate::sync::lock;
use crate::view::{BuildView, LastRoll, TemplateState};

/// One template.
pub(crate) struct Status {
    name: String,
    /// What is wanted. It changes with `inner` locked.
    pub(super) spec: watch::Sender<Arc<TemplateSpec>>,
    pub(super) inner: Mutex<Inner>,
    pub(super) changed: Notify,
    pub(super) removed: CancellationToken,
    pub(super) left: CancellationToken,
    looked: CancellationToken,
}

#[derive(Default)]
pub(super) struct Inner {
    current: Option<Arc<dyn LiveGeneration>>,
    /// What the current generation was made of.
    pub(super) made_of: Option<Arc<TemplateSpec>>,
    /// What was being built is not wanted any more, and what is, is to be built in its place.
    pub(super) is_outdated: bool,
    damage: Option<String>,
    pub(super) build: Option<Arc<Build>>,
    pub(super) errands: VecDeque<Errand>,
    pub(super) on_stale: OnStale,
    pub(super) staleness: Arc<Staleness>,
    /// Somebody went back to the current generation: it is not built anew for being stale.
    pub(super) is_pinned: bool,
    /// The current generation stands in for one that is damaged.
    stands_in: bool,
    on_disk: Arc<[GenerationFacts]>,
    pub(super) last_roll: Option<Arc<LastRoll>>,
    last_error: Option<Arc<str>>,
    pub(super) retry_at: Option<Instant>,
    pub(super) stops: bool,
}

impl Inner {
    fn is_sound(&self) -> bool {
        self.current.is_some() && self.damage.is_none()
    }

    /// Whether it is to be built without anybody asking.
    fn wants_build(&self) -> bool {
        let is_stale = !self.staleness.differing.is_empty() && !self.is_pinned;
        !self.is_sound()
            || self.stands_in
            || self.is_outdated
            || (is_stale && self.on_stale == OnStale::Rebuild)
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

    fn is_current(&self, generation: &GenerationId) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.facts().id == *generation)
    }

    fn becomes(&mut self, generation: Arc<dyn LiveGeneration>) -> Option<Arc<dyn LiveGeneration>> {
        self.damage = None;
        self.stands_in = false;
        self.is_pinned = false;
        self.made_of = None;
        self.staleness = Arc::default();
        self.retry_at = None;
        self.last_error = None;
        self.current.replace(generation)
    }
}

/// What is known of each template, as long as its keeper works.
#[derive(Default)]
pub(crate) struct Statuses(Mutex<HashMap<String, Weak<Status>>>);

impl Statuses {
    /// The keeper of a template begins.
    pub(super) fn enter(&self, status: &Arc<Status>) {
        let mut statuses = lock(&self.0);
        statuses.retain(|_, status| status.strong_count() > 0);
        statuses.insert(status.name.clone(), Arc::downgrade(status));
    }

    /// What is known of a template.
    pub(crate) fn of(&self, template: &str) -> Option<Arc<Status>> {
        lock(&self.0).get(template).and_then(Weak::upgrade)
    }
}

/// What of a comparison was not known before.
#[derive(Debug, Default)]
pub(super) struct StalenessNews {
    /// The fields that differ.
    pub differing: Option<Vec<StaleField>>,
    /// The fields that cannot be compared.
    pub unverified: Option<Vec<UnverifiedField>>,
}

/// How a generation compares with what is wanted, as far as the descriptions tell.
pub(super) fn described(made_of: &TemplateSpec, now: &TemplateSpec) -> Arc<Staleness> {
    Arc::new(Staleness {
        differing: stale_fields(made_of, now),
        unverified: Vec::new(),
    })
}

/// What the keeper is to do next.
pub(super) enum Work {
    /// Something that does not take long.
    Errand(Errand),
    /// This build.
    Build(Arc<Build>),
    /// Nothing, until something changes or this moment comes.
    Rest { until: Option<Instant> },
}

/// Something that the keeper does, also while it builds.
pub(super) enum Errand {
    /// The pool is over on this generation.
    Rolled(GenerationId),
    /// The pool has given a generation up.
    WentBack {
        given_up: GenerationId,
        back_to: GenerationId,
    },
    /// The current generation is damaged: another may stand in for it.
    StandIn,
    /// Other settings are wanted: the current generation may be stale.
    Look,
    /// Somebody wants the generation before.
    GoBack(oneshot::Sender<Result<(), RollbackError>>),
}

impl Status {
    /// A template of which nothing is known yet.
    pub(crate) fn new(spec: TemplateSpec, on_stale: OnStale) -> Arc<Self> {
        Arc::new(Self {
            name: spec.name.clone(),
            spec: watch::Sender::new(Arc::new(spec)),
            inner: Mutex::new(Inner {
                on_stale,
                ..Inner::default()
            }),
            changed: Notify::new(),
            removed: CancellationToken::new(),
            left: CancellationToken::new(),
            looked: CancellationToken::new(),
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Cancelled once it is known what is on disk, and whether the clones of an earlier service may be handed out.
    pub(crate) fn looked(&self) -> &CancellationToken {
        &self.looked
    }

    /// What it looks like.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let inner = lock(&self.inner);
        Snapshot {
            state: inner.state(),
            current: inner.current.clone(),
            on_disk: Arc::clone(&inner.on_disk),
            build: inner.build.clone(),
            on_stale: inner.on_stale,
            staleness: Arc::clone(&inner.staleness),
            last_roll: inner.last_roll.clone(),
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
            return Err(UnknownTemplate::of(&self.name).into());
        }
        if inner.stops {
            return Err(RebuildError::ShuttingDown);
        }
        if let Some(running) = &inner.build {
            return Err(RebuildError::AlreadyRunning {
                build: running.id().to_owned(),
            });
        }
        let build = builds.begin(&self.name);
        inner.build = Some(Arc::clone(&build));
        self.changed.notify_one();
        Ok(build.view())
    }

    /// Asks for the generation before. Resolves once it is the current one.
    ///
    /// # Cancel safety
    /// Dropped, it is done all the same.
    pub(crate) async fn go_back(&self) -> Result<(), RollbackError> {
        let (reply, done) = oneshot::channel();
        {
            let mut inner = lock(&self.inner);
            if inner.stops {
                return Err(RollbackError::ShuttingDown);
            }
            if let Some(running) = &inner.build {
                return Err(RollbackError::Building {
                    build: running.id().to_owned(),
                });
            }
            inner.errands.push_back(Errand::GoBack(reply));
        }
        self.changed.notify_one();
        done.await.unwrap_or(Err(RollbackError::ShuttingDown))
    }

    /// The pool has found something out.
    pub(crate) fn report(&self, report: Report) {
        let mut inner = lock(&self.inner);
        inner.note_roll(&report);
        match report {
            Report::Damaged { generation, reason }
                if inner.is_current(&generation) && inner.damage.is_none() =>
            {
                inner.damage = Some(reason);
                inner.errands.push_back(Errand::StandIn);
            }
            Report::RolledBack {
                given_up,
                back_to,
                reason,
            } if inner.is_current(&given_up) => {
                let id = back_to.facts().id.clone();
                inner.becomes(back_to);
                let why = format!(
                    "generation {given_up} was given up, and {id} is current again: {reason}"
                );
                inner.last_error = Some(why.into());
                let back_to = id;
                inner
                    .errands
                    .push_back(Errand::WentBack { given_up, back_to });
            }
            Report::Rolled { generation } => {
                inner.errands.push_back(Errand::Rolled(generation));
            }
            // Another one is current meanwhile, or it was said before; or there is nothing to be done.
            Report::Damaged { .. } | Report::RolledBack { .. } | Report::Rolls { .. } => return,
        }
        self.changed.notify_one();
    }

    /// Whether the current generation is known to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        lock(&self.inner).damage.is_some()
    }

    /// No builds begin any more.
    pub(crate) fn stop(&self) {
        lock(&self.inner).stops = true;
    }

    /// What the keeper is to do now. A build that is needed and not asked for begins here.
    pub(super) fn next_work(&self, builds: &Builds) -> Work {
        let mut inner = lock(&self.inner);
        if let Some(errand) = inner.errands.pop_front() {
            return Work::Errand(errand);
        }
        if let Some(build) = &inner.build {
            return Work::Build(Arc::clone(build));
        }
        if !inner.wants_build() || inner.stops {
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

    /// The next errand, waited for.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn errand(&self) -> Errand {
        loop {
            if let Some(errand) = lock(&self.inner).errands.pop_front() {
                return errand;
            }
            self.changed.notified().await;
        }
    }

    /// The build that the stop has cut off.
    pub(super) fn take_build(&self) -> Option<Arc<Build>> {
        lock(&self.inner).build.take()
    }

    /// Waits until there may be other work.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How the current generation compares with what would be built now, or what is on disk while there is none. What
    /// was known to differ, and cannot be compared any more, still counts as differing. Returns what of it is news.
    pub(super) fn compares(
        &self,
        generation: Option<&GenerationId>,
        mut found: Staleness,
    ) -> StalenessNews {
        let mut inner = lock(&self.inner);
        if generation.is_some_and(|generation| !inner.is_current(generation)) {
            return StalenessNews::default();
        }
        let before = Arc::clone(&inner.staleness);
        for unverified in &found.unverified {
            let is_it = |known: &&StaleField| known.field == unverified.field;
            let known = before.differing.iter().find(is_it);
            found.differing.extend(known.cloned());
        }
        let news = StalenessNews {
            differing: (before.differing != found.differing).then(|| found.differing.clone()),
            unverified: (before.unverified != found.unverified).then(|| found.unverified.clone()),
        };
        inner.staleness = Arc::new(found);
        news
    }

    /// What there is on disk.
    pub(super) fn is_on_disk(&self, generations: Vec<GenerationFacts>) {
        lock(&self.inner).on_disk = generations.into();
    }

    /// A generation is not on disk any more.
    pub(crate) fn no_longer_on_disk(&self, generation: &GenerationId) {
        let mut inner = lock(&self.inner);
        let left = inner.on_disk.iter().filter(|one| one.id != *generation);
        inner.on_disk = left.cloned().collect();
    }

    /// There is a current generation, made of this, where that is known. Returns the one before it.
    pub(super) fn set_current(
        &self,
        generation: Arc<dyn LiveGeneration>,
        made_of: Option<Arc<TemplateSpec>>,
    ) -> Option<Arc<dyn LiveGeneration>> {
        let mut inner = lock(&self.inner);
        let before = inner.becomes(generation);
        if let Some(made_of) = &made_of {
            // Something else may be wanted since its making began.
            inner.staleness = described(made_of, &self.spec.borrow());
        }
        inner.made_of = made_of;
        before
    }

    /// The current generation is one that somebody has gone back to, and stays it.
    pub(super) fn pin(&self) {
        lock(&self.inner).is_pinned = true;
    }

    /// The current generation only stands in for one that is to be built.
    pub(super) fn stands_in(&self) {
        lock(&self.inner).stands_in = true;
    }

    /// No build begins by itself before that.
    pub(super) fn hold_off(&self, pause: Duration) {
        lock(&self.inner).retry_at = Some(Instant::now() + pause);
    }

    /// The build has ended.
    pub(super) fn build_ended(&self) {
        lock(&self.inner).build = None;
    }

    /// The build has failed. It is tried again after a pause, unless it is not needed. Returns whether.
    pub(super) fn build_failed(&self, error: &str, pause: Duration) -> bool {
        let mut inner = lock(&self.inner);
        inner.build = None;
        inner.last_error = Some(error.into());
        inner.retry_at = inner.wants_build().then(|| Instant::now() + pause);
        inner.retry_at.is_some()
    }

    /// Lets go of the generation, if there is one: nothing is made any more.
    pub(super) fn forget_current(&self) {
        lock(&self.inner).current = None;
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
