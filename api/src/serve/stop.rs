//! The stop: gentle at first, quick after a second signal.

use tokio::time::{Duration, timeout};
use tracing::{info, warn};
use vmint_cache::{Cache, Leased};

use super::server::Server;
use crate::http::Stopping;

/// How long requests that run may go on. After it their sandboxes are ended or left under them.
const REQUESTS_GRACE: Duration = Duration::from_secs(10);
/// How long requests may take to tell that their sandboxes were taken away.
const LAST_WORDS_GRACE: Duration = Duration::from_secs(3);
/// How long virtual machines may take to end by themselves; then they are killed.
const VMS_GRACE: Duration = Duration::from_secs(20);
/// How long a quick stop may take in all.
const QUICK_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends what runs, in order. Generations stay for the next start.
pub(super) async fn stop_gently(
    cache: &Cache,
    stopping: &Stopping,
    server: Server,
    leased: Leased,
) {
    cache.begin_stop();
    stopping.begin();
    if timeout(REQUESTS_GRACE, stopping.quiet()).await.is_err() {
        warn!(grace = ?REQUESTS_GRACE, "requests still run; their sandboxes are taken away now");
    }
    cache.stop(VMS_GRACE, leased).await;
    match leased {
        Leased::GoOn => info!("every unused clone has ended; leased sandboxes go on"),
        Leased::End => info!("every virtual machine has ended"),
    }
    if timeout(LAST_WORDS_GRACE, stopping.quiet()).await.is_err() {
        warn!("some clients did not take how their requests ended");
    }
    server.close().await;
}

/// Ends the virtual machines at once; requests are cut off.
pub(super) async fn stop_quickly(cache: &Cache, leased: Leased) {
    cache.begin_stop();
    if timeout(QUICK_TIMEOUT, cache.stop(Duration::ZERO, leased))
        .await
        .is_err()
    {
        warn!(
            "some virtual machines could not be ended; the next start, or vmint clean, sweeps them"
        );
    }
}
