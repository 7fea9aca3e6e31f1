//! From a configuration to a service that listens, and on to its end.

use std::io;
use std::sync::Arc;

use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use vmint_cache::{AdoptedClone, Cache, CacheSettings, Leased, MemoryBudget};

use super::backend::{Backend, BackendError};
use super::files;
use super::listen::{ListenError, Listeners};
use super::memory;
use super::server::Server;
use super::signals::Signals;
use super::stop::{stop_gently, stop_quickly};
use crate::config::Config;
use crate::http::{Service, Stopping, router};
use crate::telemetry::{Metrics, log_panics};

/// How often samples are summed up that nobody scraped.
const SUM_UP_INTERVAL: Duration = Duration::from_secs(5);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Signals cannot be listened to.
    #[error("cannot listen to signals: {0}")]
    Signals(#[source] io::Error),
    /// The host does not say how much memory it has.
    #[error("cannot find out how much memory there is: {0}")]
    Memory(#[from] procfs::ProcError),
    /// The factory did not open.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A listener could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Serves until a signal ends it, and gives the exit code. What becomes of leased sandboxes then is `leased`.
///
/// # Errors
/// The service could not start; nothing of it is left. Sandboxes of an earlier service are as they were.
pub async fn serve(config: Config, leased: Leased) -> Result<u8, ServeError> {
    log_panics();
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let backend = tokio::select! {
        opened = Backend::open(&config) => opened?,
        stop = signals.stop() => {
            info!(signal = stop.as_str(), "stopped before the start was done");
            return Ok(0);
        }
    };
    serve_with(config, backend, signals, leased).await
}

async fn serve_with(
    config: Config,
    backend: Backend,
    mut signals: Signals,
    leased: Leased,
) -> Result<u8, ServeError> {
    let files = files::raise_limit();
    let memory = memory::budget(config.memory_share)?;
    let listeners = Listeners::bind(&config.server).await?;
    let urls = listeners.urls().join(" and ");
    let guardian = Arc::clone(&backend.guardian);
    // What is taken up has no other owner: from here on nothing fails, and a stop waits until it can be left again.
    let adopted = adopt(&config, &backend).await;
    let (service, cache, stopping, metrics) = assemble(&config, backend, adopted, memory);
    let server = Server::start(listeners, &router(service), files, qemu_uid(&config));
    let upkeep = AbortOnDropHandle::new(tokio::spawn(sum_up(metrics)));
    info!("listening on {urls}");

    let first = signals.stop().await;
    info!(
        signal = first.as_str(),
        "stopping; a second signal ends it at once"
    );
    let code = tokio::select! {
        () = stop_gently(&cache, &stopping, server, leased) => 0,
        second = signals.stop() => {
            warn!(signal = second.as_str(), "ending at once");
            stop_quickly(&cache, leased).await;
            second.exit_code()
        }
    };
    drop(upkeep);
    drop(guardian);
    info!("stopped");
    Ok(code)
}

/// Takes up the clones that an earlier service has left.
async fn adopt(config: &Config, backend: &Backend) -> Vec<AdoptedClone> {
    let plans = config.templates.iter();
    let specs: Vec<_> = plans.map(|plan| plan.spec.clone()).collect();
    backend.mint.adopt(&specs).await
}

fn assemble(
    config: &Config,
    backend: Backend,
    adopted: Vec<AdoptedClone>,
    memory: MemoryBudget,
) -> (Service, Cache, Stopping, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new(
        config.templates.iter().map(|plan| plan.spec.name.as_str()),
    ));
    let settings = CacheSettings {
        max_ttl: config.max_ttl,
        refill_at_once: backend.cpus,
        memory: Some(memory),
    };
    let cache = Cache::start_with(
        adopted,
        backend.mint,
        config.templates.clone(),
        settings,
        metrics.clone(),
    );
    let stopping = Stopping::new();
    let service = Service::new(
        cache.clone(),
        metrics.clone(),
        stopping.clone(),
        &config.templates,
    );
    let service = match (config.server.listen, qemu_uid(config)) {
        (Some(_), None) => service.without_user_networks(),
        (Some(_), Some(_)) | (None, _) => service,
    };
    (service, cache, stopping, metrics)
}

/// The user that QEMU runs as, where it is another one than ours. The factory has opened, so there is one of this name.
fn qemu_uid(config: &Config) -> Option<u32> {
    let name = config.host.qemu_user.as_deref()?;
    let user = nix::unistd::User::from_name(name).ok().flatten()?;
    Some(user.uid.as_raw())
}

async fn sum_up(metrics: Arc<Metrics>) {
    let mut ticks = interval(SUM_UP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.sum_up();
    }
}
