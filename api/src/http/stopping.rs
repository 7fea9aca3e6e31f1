//! The stop of the service as requests see it: those that run are waited for, those that come later are not.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Shared by all requests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stopping {
    begun: CancellationToken,
    running: TaskTracker,
}

impl Stopping {
    /// Nothing stops yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request begins; the token is held until its answer is made. None once the stop has begun.
    pub(super) fn enter(&self) -> Option<TaskTrackerToken> {
        (!self.begun.is_cancelled()).then(|| self.running.token())
    }

    /// The stop begins.
    pub fn begin(&self) {
        self.begun.cancel();
        self.running.close();
    }

    /// Resolves once the stop has begun.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Resolves once the stop has begun and every request from before has its answer.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn quiet(&self) {
        self.running.wait().await;
    }
}
