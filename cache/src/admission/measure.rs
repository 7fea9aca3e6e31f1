//! What clones take, measured again and again: a guest may write to its memory at any time.

use std::sync::Weak;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use vmint_factory::VmId;

use super::ledger::Admission;
use crate::mint::LiveClone;

/// The pause between two rounds. A guest that writes as fast as it can fills some GiB in that time; what the share of the
/// host leaves is for that.
const PAUSE: Duration = Duration::from_secs(2);
/// The pause is at least so many times as long as the round before it: a clone takes about a millisecond, and measuring a
/// thousand of them must not take a core for itself.
const PAUSE_TO_ROUND: u32 = 10;
/// Clones that are measured in one go, so that no thread for blocking work is taken for long.
const BATCH: usize = 16;

impl Admission {
    /// Measures all clones again and again until the stop begins.
    pub(crate) async fn keep_measured(self, stopping: CancellationToken) {
        let work = async {
            loop {
                let begun = Instant::now();
                self.measure_all().await;
                sleep(PAUSE.max(begun.elapsed() * PAUSE_TO_ROUND)).await;
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = work => {}
        }
    }

    async fn measure_all(&self) {
        let machines = self.machines();
        let mut found = Vec::with_capacity(machines.len());
        for batch in machines.chunks(BATCH) {
            let batch = batch.to_vec();
            match spawn_blocking(move || batch.into_iter().filter_map(measured).collect::<Vec<_>>())
                .await
            {
                Ok(bytes) => found.extend(bytes),
                Err(error) => warn!(%error, "the memory of some clones was not measured"),
            }
        }
        self.measured(found);
    }
}

/// What one clone takes; nothing where it is gone, or about to be.
fn measured((id, vm): (VmId, Weak<dyn LiveClone>)) -> Option<(VmId, u64)> {
    let bytes = vm.upgrade()?.anonymous_bytes().ok()?;
    Some((id, bytes))
}
