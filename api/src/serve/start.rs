//! From a configuration to a service that listens, and on to its end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;
use nix::unistd::Uid;
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};
use vmint_cache::{AdoptedClone, Cache, CacheSettings, Leased, MemoryBudget};
use vmint_factory::{Factory, Hypervisors, supervise};

use super::backend::{Backend, BackendError};
use super::files;
use super::listen::{ListenError, Listeners};
use super::memory;
use super::server::Server;
use super::signals::{Hangup, Signals};
use super::stop::{stop_gently, stop_quickly};
use super::upkeep::{keep_places, owns_places};
use crate::config::{Config, Examined};
use crate::http::{Service, Stopping, Terms, router};
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
    let asked = factory.clone();
    let listeners = listeners.asking(Box::new(move || {
        let factory = asked.clone();
        async move { owns_places(&factory).await }.boxed()
    }));
    // What is taken up has no other owner: from here on nothing fails, and a stop waits until it can be left again.
    let adopted = adopt(&config, &backend).await;
    let hypervisors = hypervisor_uids(&factory, &config);
    let (cache, metrics) = start_cache(&config, backend, adopted, memory);
    let reloader = Reloader::new(file, examined, cache.clone(), Arc::clone(&metrics));
    let stopping = Stopping::new();
    let service = assemble(&config, &cache, &metrics, &stopping, &reloader);
    let server = Server::start(listeners, &router(service), files, &hypervisors);
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
    let terms = Terms {
        group: config.server.socket_group,
        user_networks: config.host.user_networks,
    };
    Service::new(
        cache.clone(),
        Arc::clone(metrics),
        stopping.clone(),
        Arc::clone(reloader),
        terms,
    )
}

/// What came of it is in the log, and in `GET /v1/config`.
async fn reload_on(mut hangup: Hangup, reloader: Arc<Reloader>) {
    loop {
        hangup.next().await;
        info!("SIGHUP: the configuration is read again");
        drop(reloader.reload().await);
    }
}

/// The users that hypervisors run as, where they are others than ours: those that are started now, and those that an earlier
/// service, which may have had other users for them, has left. Those of our own user are told apart in other ways.
fn hypervisor_uids(factory: &Factory, config: &Config) -> Vec<u32> {
    let own = Uid::effective().as_raw();
    if config.server.listen.is_some() && Hypervisors.connect_as(own) {
        error!(
            "a sandbox of an earlier service may open TCP connections as this service's own user: until it has ended, every \
             request over TCP is refused (403)"
        );
    }
    let mut uids = Hypervisors.uids();
    uids.extend(factory.host().hypervisor_uids);
    uids.retain(|uid| *uid != own);
    uids
}

async fn sum_up(metrics: Arc<Metrics>) {
    let mut ticks = interval(SUM_UP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.sum_up();
    }
}
