//! Looking, every few seconds, whether the current generation is what would be built now, and what else is on disk.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use vmint_factory::{GenerationId, Staleness, UnverifiedField};

use super::keeper::Keeper;
use super::snapshot::differences;
use crate::events::Happening;
use crate::pool::Report;

/// How often to look: an operator who has changed a file does not wait for longer. It costs the reading of
/// the manifests and a few `stat`s.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A generation that is stale so soon after its build may have been built from files that change all the time, or that
/// cannot be told apart: it is not built anew at once, but after the pause of a failure.
const TOO_SOON: Duration = Duration::from_secs(60);

/// When to look.
pub(super) struct Looks {
    next: Instant,
    built: Option<(GenerationId, Instant)>,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self {
            next: Instant::now() + LOOK_EVERY,
            built: None,
        }
    }

    /// Resolves when it is time.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn due(&self) {
        sleep_until(self.next).await;
    }

    /// A generation was built.
    pub(super) fn built(&mut self, generation: GenerationId) {
        // A build may have kept the keeper for longer than that. What is wrong with the new one its trial tells first.
        self.next = Instant::now() + LOOK_EVERY;
        self.built = Some((generation, Instant::now()));
    }

    fn is_too_soon(&self, generation: &GenerationId) -> bool {
        let mut built = self.built.iter();
        built.any(|(built, at)| built == generation && at.elapsed() < TOO_SOON)
    }
}

impl Keeper {
    /// Looks at everything.
    pub(super) async fn look(&mut self) {
        self.looks.next = Instant::now() + LOOK_EVERY;
        self.list().await;
        let Some(current) = self.status.snapshot().current else {
            return;
        };
        if let Some(reason) = self.node.mint.damage(&current).await {
            self.note_damage(current.facts().id.clone(), reason);
            return;
        }
        let spec = self.status.spec();
        let found = self.node.mint.staleness(&current, &spec).await;
        self.note_staleness(&current.facts().id, found);
    }

    /// A file of the current generation is not what it was: no clone can be made of it. A pool that is full would find that
    /// out when the next one is needed.
    fn note_damage(&self, generation: GenerationId, reason: String) {
        if !self.status.is_damaged() {
            warn!(%generation, reason, "the current generation is damaged: rebuilding");
            self.status.report(Report::Damaged { generation, reason });
        }
    }

    /// Looks at what is on disk.
    pub(super) async fn list(&mut self) {
        match self.node.mint.generations(&self.status.spec()).await {
            Ok(generations) => {
                let (name, memory) = (self.status.name(), &self.node.memory);
                memory.keeps(name, &generations);
                self.status.is_on_disk(generations);
            }
            Err(error) => warn!(%error, "the generations on disk cannot be listed"),
        }
    }

    /// The current generation compares in this way with what would be built now.
    pub(super) fn note_staleness(&mut self, generation: &GenerationId, found: Staleness) {
        let news = self.status.compares(Some(generation), found);
        if let Some(fields) = news.unverified {
            note_unverified(generation, &fields);
        }
        let Some(fields) = news.differing else {
            return;
        };
        if fields.is_empty() {
            info!(%generation, "the current generation is no longer stale");
        } else {
            let differences = differences(&fields);
            warn!(%generation, differences, "the current generation is stale");
            if self.looks.is_too_soon(generation) {
                let pause = self.next_pause();
                self.status.hold_off(pause);
            }
        }
        self.tell(Happening::TemplateStale {
            generation: generation.to_string(),
            fields: fields.into_iter().map(|stale| stale.field).collect(),
        });
    }
}

/// What cannot be read is not what differs: nothing is rebuilt for it.
fn note_unverified(generation: &GenerationId, fields: &[UnverifiedField]) {
    if fields.is_empty() {
        info!(%generation, "the current generation can be compared again with what would be built now");
        return;
    }
    let reasons: Vec<_> = fields
        .iter()
        .map(|unverified| format!("{}: {}", unverified.field, unverified.reason))
        .collect();
    let reasons = reasons.join("; ");
    warn!(%generation, reasons, "it cannot be told at present whether the current generation is stale: it goes on serving");
}
