//! From a configuration to a service that listens, and on to its end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use vmint_cache::{AdoptedClone, Cache, CacheSettings, Leased, MemoryBudget};
use vmint_factory::supervise;

use super::backend::{Backend, BackendError};
use super::files;
use super::listen::{ListenError, Listeners};
use super::memory;
use super::server::Server;
use super::signals::{Hangup, Signals};
use super::stop::{stop_gently, stop_quickly};
use super::upkeep::keep_places;
use crate::config::{Config, Examined};
use crate::http::{Service, Stopping, router};
use crate::reload::Reloader;
use crate::telemetry::Metrics;

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

/// Serves until a signal ends it, and gives the exit code. The configuration was read from this file, and is read from it
/// again when somebody asks for that. What becomes of leased sandboxes at the end is `leased`.
///
/// # Errors
/// The service could not start; nothing of it is left. Sandboxes of an earlier service are as they were.
pub async fn serve(
    file: Option<&Path>,
    examined: Examined,
    leased: Leased,
) -> Result<u8, ServeError> {
    // A panic here would unwind past every handle, and a sandbox ends with its last one.
    supervise("service", serve_until_stopped(file, examined, leased)).await
}

async fn serve_until_stopped(
    file: Option<&Path>,
    examined: Examined,
    leased: Leased,
) -> Result<u8, ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let hangup = Hangup::listen().map_err(ServeError::Signals)?;
    let backend = tokio::select! {
        opened = Backend::open(&examined.config) => opened?,
        stop = signals.stop() => {
            info!(signal = stop.as_str(), "stopped before the start was done");
            return Ok(0);
        }
    };
    serve_with((file, examined), backend, (signals, hangup), leased).await
}

async fn serve_with(
    (file, examined): (Option<&Path>, Examined),
    backend: Backend,
    (mut signals, hangup): (Signals, Hangup),
    leased: Leased,
) -> Result<u8, ServeError> {
    let files = files::raise_limit();
    let config = examined.config.clone();
    let memory = memory::budget(config.memory_share)?;
    let listeners = Listeners::bind(&config.server).await?;
    let urls = listeners.urls().join(" and ");
    let guardian = Arc::clone(&backend.guardian);
    let factory = backend.factory.clone();
    // What is taken up has no other owner: from here on nothing fails, and a stop waits until it can be left again.
    let adopted = adopt(&config, &backend).await;
    let (cache, metrics) = start_cache(&config, backend, adopted, memory);
    let reloader = Reloader::new(file, examined, cache.clone(), Arc::clone(&metrics));
    let stopping = Stopping::new();
    let service = assemble(&config, &cache, &metrics, &stopping, &reloader);
    let server = Server::start(
        listeners,
        &router(service),
        files,
        &hypervisor_uids(&config),
    );
    let upkeep = AbortOnDropHandle::new(tokio::spawn(supervise("metrics upkeep", sum_up(metrics))));
    let places = supervise("directories", keep_places(factory, cache.clone()));
    let places = AbortOnDropHandle::new(tokio::spawn(places));
    let reloads = AbortOnDropHandle::new(tokio::spawn(supervise(
        "configuration reload",
        reload_on(hangup, reloader),
    )));
    info!("listening on {urls}");

    tokio::select! {
        first = signals.stop() => info!(
            signal = first.as_str(),
            "stopping; a second signal ends it at once"
        ),
        () = cache.drained_to_exit() => info!("drained: stopping, as was asked for"),
    }
    drop(reloads);
    let code = tokio::select! {
        () = stop_gently(&cache, &stopping, server, leased) => 0,
        second = signals.stop() => {
            warn!(signal = second.as_str(), "ending at once");
            stop_quickly(&cache, leased).await;
            second.exit_code()
        }
    };
    drop(places);
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

fn start_cache(
    config: &Config,
    backend: Backend,
    adopted: Vec<AdoptedClone>,
    memory: MemoryBudget,
) -> (Cache, Arc<Metrics>) {
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
    (cache, metrics)
}

fn assemble(
    config: &Config,
    cache: &Cache,
    metrics: &Arc<Metrics>,
    stopping: &Stopping,
    reloader: &Arc<Reloader>,
) -> Service {
    let service = Service::new(
        cache.clone(),
        Arc::clone(metrics),
        stopping.clone(),
        Arc::clone(reloader),
    );
    let service = service.for_group(config.server.socket_group);
    let has_own_users = !hypervisor_uids(config).is_empty();
    if config.server.listen.is_some() && !has_own_users {
        service.without_user_networks()
    } else {
        service
    }
}

/// What came of it is in the log, and in `GET /v1/config`.
async fn reload_on(mut hangup: Hangup, reloader: Arc<Reloader>) {
    loop {
        hangup.next().await;
        info!("SIGHUP: the configuration is read again");
        drop(reloader.reload().await);
    }
}

/// The users that hypervisors run as, where they are others than ours. The factory has opened, so there are users of these
/// names.
fn hypervisor_uids(config: &Config) -> Vec<u32> {
    let names = [
        config.host.qemu_user.as_deref(),
        config.host.build_user.as_deref(),
    ];
    let user = |name| nix::unistd::User::from_name(name).ok().flatten();
    names
        .into_iter()
        .flatten()
        .filter_map(user)
        .map(|user| user.uid.as_raw())
        .collect()
}

async fn sum_up(metrics: Arc<Metrics>) {
    let mut ticks = interval(SUM_UP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.sum_up();
    }
}
