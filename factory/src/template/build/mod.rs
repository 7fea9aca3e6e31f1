//! The pipeline: each state is a type, each step takes the one before it.
//!
//! ```text
//! Reserved --boot()--> Running --warm_up()--> Running --save()--> Saved --verify()--> Verified --publish()--> Generation
//! ```
//!
//! A step that fails drops what it was given, and dropping cleans up: the machine ends, the directory goes. The same
//! happens when the future is dropped between two steps.

mod running;
mod saved;
mod site;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{BuildError, BuildProgress, BuildStep, Generation, reserve};
use crate::TemplateSpec;
use crate::host::Host;
use site::Reserved;

/// How long one warm-up or verification command may take.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// Builds, verifies and publishes a new generation.
///
/// # Cancel safety
/// A dropped call leaves nothing behind: the machine is ended in the background and the directory is removed. Dropped in
/// the moment of its publication, it may have published.
pub(crate) async fn build(
    host: &Arc<Host>,
    spec: &TemplateSpec,
    progress: &BuildProgress,
) -> Result<Generation, BuildError> {
    host.renew_hypervisor().await?;
    refuse_unfit(host, spec)?;
    let mut clock = StepClock::start();
    progress.step(BuildStep::Reserving);
    let reserved = Reserved::make(Arc::clone(host), spec.clone()).await?;
    clock.lap("reserve");
    progress.step(BuildStep::Booting);
    let mut running = reserved.boot(progress).await?;
    clock.lap("boot");
    progress.step(BuildStep::Warming);
    running.warm_up().await?;
    clock.lap("warmup");
    progress.step(BuildStep::Saving);
    let saved = running.save().await?;
    clock.lap("save");
    progress.step(BuildStep::Verifying);
    let verified = saved.verify().await?;
    clock.lap("verify");
    progress.step(BuildStep::Publishing);
    verified.publish(clock.laps).await
}

fn refuse_unfit(host: &Host, spec: &TemplateSpec) -> Result<(), BuildError> {
    let can = host.driver.capabilities(spec.machine);
    let wanted = [
        (can.templates, "way to save a template"),
        (can.read_only_memory, "read-only memory for clones"),
        (can.vsock || !spec.vsock, "vsock: use machine q35"),
    ];
    match wanted.iter().find(|(has, _)| !has) {
        Some(&(_, lacks)) => Err(BuildError::Unfit {
            machine: spec.machine.as_str(),
            lacks,
        }),
        None => Ok(()),
    }
}

/// How long each step took.
struct StepClock {
    since: Instant,
    laps: Vec<(String, Duration)>,
}

impl StepClock {
    fn start() -> Self {
        Self {
            since: Instant::now(),
            laps: Vec::new(),
        }
    }

    fn lap(&mut self, step: &str) {
        let now = Instant::now();
        self.laps.push((step.to_owned(), now - self.since));
        self.since = now;
    }
}
