//! Sees to it that a template has a sound current generation: one task a template.
//!
//! At the start it takes what is on disk if that is whole and can be restored here; else it builds. Afterwards it builds
//! when somebody asks, when the generation is found damaged, or when it is stale and `on_stale` says so, and tries
//! again by itself as long as that is needed. Each new generation is given to the pool on trial: when clones of it cannot be
//! made, the pool goes back, and so does what is on disk. When the template is removed it leaves nothing on disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vmint_factory::{BuildError, FindError, StaleField, Staleness, TemplateSpec, UnverifiedField};

use super::builds::Build;
use super::looks::Looks;
use super::snapshot::differences;
use super::status::{Status, Work};
use crate::backoff::Backoff;
use crate::error::BoxError;
use crate::events::Happening;
use crate::mint::{FoundGeneration, LiveGeneration, StepReport};
use crate::node::Node;
use crate::pool::Pool;
use crate::telemetry::StartPath;

/// The pause after a failed build, and after a generation that was given up. A build loads the machine for seconds; what
/// made it fail (no room, a missing file) takes an operator minutes to mend.
pub(super) const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(2),
    cap: Duration::from_secs(300),
};

/// The pause before it is looked again at what is on disk, where the service lacks the descriptors or the memory to look:
/// both come back as soon as what takes them ends.
const LOOK_AGAIN: Backoff = Backoff {
    first: Duration::from_millis(200),
    cap: Duration::from_secs(10),
};

/// What a failed build is called in the metrics: what a checkout then answers.
const BUILD_FAILED: &str = "template_unavailable";
/// What a build that the stop cut off is called in the metrics.
const BUILD_STOPPED: &str = "shutting_down";

/// What a build that made what is not wanted any more is called in the metrics.
const BUILD_OUTDATED: &str = "conflict";

/// The keeper of one template.
pub(super) struct Keeper {
    pub node: Arc<Node>,
    pub status: Arc<Status>,
    pub pool: Pool,
    /// Builds in a row that came to nothing, or to a generation that was given up.
    pub failures: u32,
    pub looks: Looks,
}

/// Keeps a template until the stop, or until it is removed. `before` is the keeper's of a removed template of the same
/// name that still has clones.
pub(crate) async fn keep(
    node: Arc<Node>,
    status: Arc<Status>,
    pool: Pool,
    before: Option<CancellationToken>,
) {
    let _left = status.left().clone().drop_guard();
    let _looked = status.looked().clone().drop_guard();
    let mut keeper = Keeper {
        node,
        status,
        pool,
        failures: 0,
        looks: Looks::new(),
    };
    let (stopping, removed) = (
        keeper.node.stopping.clone(),
        keeper.status.removed().clone(),
    );
    tokio::select! {
        () = stopping.cancelled() => {}
        () = removed.cancelled() => {}
        () = keeper.work(before) => {}
    }
    keeper.leave().await;
}

impl Keeper {
    async fn work(&mut self, before: Option<CancellationToken>) {
        match before {
            None => self.find().await,
            // What is on disk is the other's, in use, and goes with its last clone.
            Some(left) => {
                left.cancelled().await;
                info!("a removed template of this name still has sandboxes: building");
            }
        }
        self.node.statuses.enter(&self.status);
        self.status.looked().cancel();
        self.list().await;
        loop {
            match self.status.next_work(&self.node.builds) {
                Work::Errand(errand) => self.run(errand).await,
                Work::Build(build) => self.build(&build).await,
                Work::Rest { until } => {
                    tokio::select! {
                        () = self.status.changed() => {}
                        () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                        () = self.looks.due() => self.look().await,
                    }
                }
            }
        }
    }

    /// Takes what is on disk, or says why not.
    async fn find(&mut self) {
        let spec = self.status.spec();
        match self.on_disk(&spec).await {
            Ok(FoundGeneration::Current(generation)) => {
                info!(generation = %generation.facts().id, "the generation on disk is valid and matches: it is used");
                let generation = self.counted(generation);
                self.take(generation, Some(spec), true).await;
            }
            Ok(FoundGeneration::Unverified { generation, fields }) => {
                let id = generation.facts().id.clone();
                info!(generation = %id, "the generation on disk is valid: it is used");
                let generation = self.counted(generation);
                self.take(generation, None, true).await;
                self.note_staleness(&id, unverified(fields));
            }
            Ok(FoundGeneration::Stale {
                generation,
                fields,
                restorable: Some(found),
            }) => {
                let found = self.counted(found);
                self.take(found, None, true).await;
                self.note_staleness(&generation, stale(fields));
            }
            Ok(FoundGeneration::Stale {
                generation,
                fields,
                restorable: None,
            }) => {
                let differences = differences(&fields);
                info!(%generation, differences, "the generation on disk cannot be restored here: rebuilding");
                self.pool.discard().await;
                self.status.compares(None, stale(fields));
            }
            Ok(FoundGeneration::Damaged { generation, reason }) => {
                warn!(%generation, reason, "the generation on disk is damaged: rebuilding");
                self.have_another_stand_in().await;
            }
            Ok(FoundGeneration::None) => info!("there is no generation on disk: building"),
            Err(error) => warn!(%error, "what is on disk cannot be used: building"),
        }
    }

    /// What is on disk. A host that lacks what it takes to look says nothing about that: it is looked again, and nothing is
    /// built or given up meanwhile.
    async fn on_disk(&self, spec: &TemplateSpec) -> Result<FoundGeneration, BoxError> {
        let is_shortage = |error: &BoxError| {
            let error = error.downcast_ref::<FindError>();
            error.is_some_and(FindError::is_shortage)
        };
        let mut failures = 0_u32;
        loop {
            let error = match self.node.mint.find(spec).await {
                Err(error) if is_shortage(&error) => error,
                found => return found,
            };
            failures = failures.saturating_add(1);
            let pause = LOOK_AGAIN.pause(failures, rand::random());
            warn!(%error, pause_ms = pause.as_millis(), "it cannot be told at present what is on disk: it is looked at again");
            sleep(pause).await;
        }
    }

    /// Builds, and sees to the errands that come meanwhile.
    async fn build(&mut self, build: &Arc<Build>) {
        let (node, status) = (Arc::clone(&self.node), Arc::clone(&self.status));
        let building = async {
            // The semaphore is never closed.
            let turn = node.building.acquire().await.ok()?;
            let id = build.id().to_owned();
            info!(build = id, "the build begins");
            let what = Happening::BuildStarted { build: id };
            node.events.tell(status.name(), what);
            let begun = Instant::now();
            let progress = Arc::clone(build);
            let report: StepReport = Arc::new(move |step| {
                info!(step = step.as_str(), "the build goes on");
                progress.enter(step);
            });
            let (spec, mut later) = status.wanted();
            let built = tokio::select! {
                built = make(&node, &spec, (&**build, report)) => Some(built),
                Ok(()) = later.changed() => None,
            };
            drop(turn);
            Some((built, spec, begun.elapsed()))
        };
        match self.attended(building).await {
            Some((Some(Ok(generation)), spec, took)) => {
                self.built(build, (generation, spec), took).await;
            }
            Some((Some(Err(error)), _, took)) => self.failed(build, &error, took),
            Some((None, _, took)) => self.outdated(build, took),
            None => {}
        }
    }

    async fn attended<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let status = Arc::clone(&self.status);
        loop {
            tokio::select! {
                done = &mut work => return done,
                errand = status.errand() => self.run(errand).await,
            }
        }
    }

    /// What it makes is not wanted any more; what is, is made next.
    fn outdated(&self, build: &Build, took: Duration) {
        const WHY: &str =
            "the template's settings were changed meanwhile: it is built with the new ones";
        info!(build = build.id(), "{WHY}");
        self.node
            .telemetry
            .build(self.status.name(), BUILD_OUTDATED, took);
        self.status.build_ended();
        self.tell(Happening::BuildFailed {
            build: build.id().to_owned(),
            reason: WHY.to_owned(),
        });
        build.fail(WHY.to_owned());
    }

    async fn built(
        &mut self,
        build: &Build,
        (generation, made_of): (Arc<dyn LiveGeneration>, Arc<TemplateSpec>),
        took: Duration,
    ) {
        let facts = generation.facts().clone();
        info!(generation = %facts.id, took_ms = took.as_millis(), "the build has succeeded");
        let telemetry = &self.node.telemetry;
        let name = self.status.name();
        telemetry.build(name, "ok", took);
        telemetry.startup(name, StartPath::Cold, &facts.boot_phases);
        if let Some(first_exec) = facts.first_exec {
            telemetry.first_exec(name, StartPath::Cold, first_exec);
        }
        self.take(generation, Some(made_of), true).await;
        self.looks.built(facts.id.clone());
        self.status.build_ended();
        build.succeed(&facts);
        self.tell(Happening::BuildSucceeded {
            build: build.id().to_owned(),
            generation: facts.id.to_string(),
            took,
        });
        self.list().await;
    }

    fn failed(&mut self, build: &Build, why: &BoxError, took: Duration) {
        let pause = self.next_pause();
        self.node
            .telemetry
            .build(self.status.name(), BUILD_FAILED, took);
        let why = with_sources(why.as_ref());
        let retries = self.status.build_failed(&why, pause);
        let next = if retries {
            format!("in {} s", pause.as_secs())
        } else {
            "when asked".to_owned()
        };
        error!(error = why, next, "the build has failed");
        self.tell(Happening::BuildFailed {
            build: build.id().to_owned(),
            reason: Happening::reason_of(&why),
        });
        build.fail(why);
    }

    /// One more failure: how long to wait after it.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        BACKOFF.pause(self.failures, rand::random())
    }

    pub(super) fn tell(&self, what: Happening) {
        self.node.events.tell(self.status.name(), what);
    }

    /// A generation that was there already, with its memory counted.
    pub(super) fn counted(&self, generation: Arc<dyn LiveGeneration>) -> Arc<dyn LiveGeneration> {
        self.node.memory.found(self.status.name(), generation)
    }

    /// Makes a generation the current one. What it was made of is known where this keeper has compared it or built it.
    pub(super) async fn take(
        &mut self,
        generation: Arc<dyn LiveGeneration>,
        made_of: Option<Arc<TemplateSpec>>,
        on_trial: bool,
    ) {
        let before = self.status.set_current(Arc::clone(&generation), made_of);
        if before.is_none() {
            // There is nothing to roll from, so nothing will say that it has rolled.
            self.failures = 0;
        }
        self.pool.publish(generation, on_trial).await;
    }

    /// Ends what was cut off, and lets go of the generation.
    async fn leave(&self) {
        self.status.stop();
        let is_removed = self.status.removed().is_cancelled();
        let (outcome, why) = if is_removed {
            (BUILD_OUTDATED, "the template was removed")
        } else {
            (BUILD_STOPPED, "the service is stopping")
        };
        if let Some(build) = self.status.take_build() {
            self.node
                .telemetry
                .build(self.status.name(), outcome, Duration::ZERO);
            build.fail(why.to_owned());
        }
        self.status.forget_current();
        self.node.memory.keeps(self.status.name(), &[]);
        if is_removed {
            self.forget().await;
        }
    }

    /// Nothing of the template stays on disk: what clones still use goes with the last of them.
    async fn forget(&self) {
        if let Err(error) = self.node.mint.forget(self.status.name()).await {
            warn!(
                error = with_sources(error.as_ref()),
                "not all of the removed template is gone from disk"
            );
        }
    }
}

fn stale(differing: Vec<StaleField>) -> Staleness {
    Staleness {
        differing,
        unverified: Vec::new(),
    }
}

fn unverified(unverified: Vec<UnverifiedField>) -> Staleness {
    Staleness {
        differing: Vec::new(),
        unverified,
    }
}

/// Builds, within the memory that there is for it. Generations that are only kept give way to it.
async fn make(
    node: &Node,
    spec: &TemplateSpec,
    (build, report): (&Build, StepReport),
) -> Result<Arc<dyn LiveGeneration>, BoxError> {
    let name = &spec.name;
    let for_what = format!("build {}", build.id());
    loop {
        let admit = || node.memory.build(name, spec.memory_mib);
        let (memory, dropped) = node.make_room(name, &for_what, admit).await;
        build.dropped(dropped);
        let memory = memory?;
        let error = match node.mint.build(spec, Arc::clone(&report)).await {
            Ok(made) => return Ok(memory.built(made)),
            Err(error) => error,
        };
        drop(memory);
        let is_no_room = error.downcast_ref().is_some_and(BuildError::is_no_room);
        if !is_no_room {
            return Err(error);
        }
        // The memory was admitted, and the file system or the host has less of it.
        match node.drop_kept(name, &for_what).await {
            Some(dropped) => build.dropped([dropped]),
            None => return Err(error),
        }
    }
}

/// An error and what caused it, unless the text says so already.
pub(super) fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
