//! Sees to it that a template has a sound current generation: one task a template.
//!
//! At the start it takes what is on disk if that is valid and matches; else it builds. Afterwards it builds when
//! somebody asks, or when a clone finds the generation damaged, and tries again by itself as long as there is no sound
//! one. Each new generation is given to the pool, and the one before it retired: its files go with its last clone. When
//! other settings are wanted it builds with those, and when the template is removed it leaves nothing on disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vmint_factory::TemplateSpec;

use super::builds::Build;
use super::status::{Status, Work};
use crate::backoff::Backoff;
use crate::error::BoxError;
use crate::events::Happening;
use crate::mint::{FoundGeneration, LiveGeneration, StepReport};
use crate::node::Node;
use crate::pool::Pool;
use crate::telemetry::StartPath;

/// The pause after a failed build. A build loads the machine for seconds; what made it fail (no room, a missing file)
/// takes an operator minutes to mend.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(2),
    cap: Duration::from_secs(300),
};

/// What a failed build is called in the metrics: what a checkout then answers.
const BUILD_FAILED: &str = "template_unavailable";
/// What a build that the stop cut off is called in the metrics.
const BUILD_STOPPED: &str = "shutting_down";

/// What a build that made what is not wanted any more is called in the metrics.
const BUILD_OUTDATED: &str = "conflict";

/// The keeper of one template.
struct Keeper {
    node: Arc<Node>,
    status: Arc<Status>,
    pool: Pool,
    failures: u32,
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
    let mut keeper = Keeper {
        node,
        status,
        pool,
        failures: 0,
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
            None => self.look().await,
            // What is on disk is the other's, in use, and goes with its last clone: a look would take it for leavings.
            Some(left) => {
                left.cancelled().await;
                info!("a removed template of this name still has sandboxes: building");
            }
        }
        loop {
            match self.status.next_work(&self.node.builds) {
                Work::Build(build) => self.build(&build).await,
                Work::Rest { until } => {
                    tokio::select! {
                        () = self.status.changed() => {}
                        () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                    }
                }
            }
        }
    }

    /// Takes what is on disk, or says why not.
    async fn look(&self) {
        let (spec, _) = self.status.wanted();
        match self.node.mint.find(&spec).await {
            Ok(FoundGeneration::Current(generation)) => {
                info!(generation = %generation.facts().id, "the generation on disk is valid and matches: it is used");
                let memory = &self.node.memory;
                let generation = memory.found(self.status.name(), generation);
                self.take(generation, spec).await;
            }
            Ok(FoundGeneration::Stale { generation, fields }) => {
                let differences: Vec<String> = fields
                    .iter()
                    .map(|stale| {
                        format!(
                            "{}: {} was, {} is",
                            stale.field, stale.built_with, stale.now
                        )
                    })
                    .collect();
                info!(%generation, differences = differences.join("; "), "the generation on disk does not match: rebuilding");
                self.status.found_stale(fields);
            }
            Ok(FoundGeneration::Damaged { generation, reason }) => {
                warn!(%generation, reason, "the generation on disk is damaged: rebuilding");
            }
            Ok(FoundGeneration::None) => info!("there is no generation on disk: building"),
            Err(error) => warn!(%error, "what is on disk cannot be used: building"),
        }
    }

    async fn build(&mut self, build: &Arc<Build>) {
        let node = Arc::clone(&self.node);
        // The semaphore is never closed.
        let Ok(_turn) = node.building.acquire().await else {
            return;
        };
        let id = build.view().id;
        info!(build = id, "the build begins");
        self.tell(Happening::BuildStarted { build: id });
        let begun = Instant::now();
        let progress = Arc::clone(build);
        let report: StepReport = Arc::new(move |step| {
            info!(step = step.as_str(), "the build goes on");
            progress.enter(step);
        });
        let (spec, mut later) = self.status.wanted();
        let memory = match node.memory.build(&spec.name, spec.memory_mib) {
            Ok(memory) => memory,
            Err(sum) => return self.failed(build, &sum.into(), begun.elapsed()),
        };
        let made = tokio::select! {
            made = node.mint.build(&spec, report) => made,
            Ok(()) = later.changed() => return self.outdated(build, begun.elapsed()),
        };
        match made {
            Ok(generation) => {
                let generation = memory.built(generation);
                self.built(build, (generation, spec), begun.elapsed()).await;
            }
            Err(error) => self.failed(build, &error, begun.elapsed()),
        }
    }

    /// What it makes is not wanted any more; what is, is made next.
    fn outdated(&self, build: &Build, took: Duration) {
        const WHY: &str =
            "the template's settings were changed meanwhile: it is built with the new ones";
        info!(build = build.view().id, "{WHY}");
        self.node
            .telemetry
            .build(self.status.name(), BUILD_OUTDATED, took);
        self.status.build_ended();
        self.tell(Happening::BuildFailed {
            build: build.view().id,
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
        self.failures = 0;
        self.take(generation, made_of).await;
        self.status.build_ended();
        build.succeed(&facts);
        self.tell(Happening::BuildSucceeded {
            build: build.view().id,
            generation: facts.id.to_string(),
            took,
        });
    }

    fn failed(&mut self, build: &Build, why: &BoxError, took: Duration) {
        self.failures = self.failures.saturating_add(1);
        let pause = BACKOFF.pause(self.failures, rand::random());
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
            build: build.view().id,
            reason: Happening::reason_of(&why),
        });
        build.fail(why);
    }

    fn tell(&self, what: Happening) {
        self.node.events.tell(self.status.name(), what);
    }

    /// Makes a generation the current one, and lets go of the one before it.
    async fn take(&self, generation: Arc<dyn LiveGeneration>, made_of: Arc<TemplateSpec>) {
        let before = self.status.set_current(Arc::clone(&generation), made_of);
        // Before anything is waited for: whatever cuts this off, its files go with its last clone.
        if let Some(before) = before {
            before.retire();
        }
        self.pool.publish(generation).await;
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
        if let Work::Build(build) = self.status.next_work(&self.node.builds) {
            self.status.build_ended();
            self.node
                .telemetry
                .build(self.status.name(), outcome, Duration::ZERO);
            build.fail(why.to_owned());
        }
        self.status.forget_current();
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

/// An error and what caused it, unless the text says so already.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
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
