//! From a configuration to a service that listens, and on to its end.

use std::io;
use std::sync::Arc;

use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use vmint_cache::{Cache, CacheSettings};

use super::backend::{Backend, BackendError};
use super::files;
use super::listen::{ListenError, Listeners};
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
    /// The factory did not open.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A listener could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Serves until a signal ends it, and gives the exit code.
///
/// # Errors
/// The service could not start; nothing of it is left.
pub async fn serve(config: Config) -> Result<u8, ServeError> {
    log_panics();
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let backend = tokio::select! {
        opened = Backend::open(&config) => opened?,
        stop = signals.stop() => {
            info!(signal = stop.as_str(), "stopped before the start was done");
            return Ok(0);
        }
    };
    serve_with(config, backend, signals).await
}

async fn serve_with(
    config: Config,
    backend: Backend,
    mut signals: Signals,
) -> Result<u8, ServeError> {
    let files = files::raise_limit();
    let listeners = Listeners::bind(&config.server).await?;
    let urls = listeners.urls().join(" and ");
    let guardian = Arc::clone(&backend.guardian);
    let (service, cache, stopping, metrics) = assemble(&config, backend);
    let server = Server::start(listeners, &router(service), files, qemu_uid(&config));
    let upkeep = AbortOnDropHandle::new(tokio::spawn(sum_up(metrics)));
    info!("listening on {urls}");

    tokio::select! {
        first = signals.stop() => info!(
            signal = first.as_str(),
            "stopping; a second signal ends it at once"
        ),
        () = cache.drained_to_exit() => info!("drained: stopping, as was asked for"),
    }
    let code = tokio::select! {
        () = stop_gently(&cache, &stopping, server) => 0,
        second = signals.stop() => {
            warn!(signal = second.as_str(), "ending at once");
            stop_quickly(&cache).await;
            second.exit_code()
        }
    };
    drop(upkeep);
    drop(guardian);
    info!("stopped");
    Ok(code)
}

fn assemble(config: &Config, backend: Backend) -> (Service, Cache, Stopping, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new(
        config.templates.iter().map(|plan| plan.spec.name.as_str()),
    ));
    let settings = CacheSettings {
        max_ttl: config.max_ttl,
        refill_at_once: backend.cpus,
    };
    let cache = Cache::start(
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
