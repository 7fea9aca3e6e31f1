//! A service in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use nix::unistd::Gid;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;
use vmint_api::config::{Examined, Places, examine_text, load_whole};
use vmint_api::http::{Origin, Peer, Service, Stopping, Terms, router};
use vmint_api::reload::Reloader;
use vmint_api::telemetry::Metrics;
use vmint_cache::{Cache, CacheSettings, Caller, MemoryBudget, TemplatePlan};

use super::waiting::seen;
use super::{FakeFactory, Reply};

/// Longer than anything here takes; an answer that never comes fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// Turns in which a number stands still before it is believed: more than anything takes on its way through this process.
const STILL_TURNS: usize = 100;
/// Most turns that are waited for.
const TURNS_MAX: usize = 1_000_000;

/// The default values of the configuration.
fn defaults() -> Examined {
    let places = Places {
        uid: 1000,
        xdg_runtime_dir: None,
        guest_dirs: Vec::new(),
        memory_mib: 4096,
        vsock_refusal: None,
    };
    examine_text("", "defaults", &places).unwrap()
}

/// The plan of the default template, with the default values of the configuration.
pub(crate) fn plan() -> TemplatePlan {
    defaults().config.templates.remove(0)
}

/// A service, and the factory behind it.
pub(crate) struct Harness {
    pub(crate) router: Router,
    pub(crate) cache: Cache,
    pub(crate) stopping: Stopping,
    pub(crate) factory: Arc<FakeFactory>,
}

impl Harness {
    /// A service with the default template, ready.
    pub(crate) async fn start() -> Self {
        let harness = Self::start_with(FakeFactory::new(), vec![plan()]);
        harness.until_ready().await;
        harness
    }

    /// A service with these templates; not ready yet.
    pub(crate) fn start_with(factory: Arc<FakeFactory>, plans: Vec<TemplatePlan>) -> Self {
        Self::start_within(factory, plans, None)
    }

    /// The same on a host with so much memory.
    pub(crate) fn start_within(
        factory: Arc<FakeFactory>,
        plans: Vec<TemplatePlan>,
        memory: Option<MemoryBudget>,
    ) -> Self {
        let mut examined = defaults();
        examined.config.templates = plans;
        Self::start_from(factory, None, examined, memory)
    }

    /// A service with what a file says; not ready yet.
    pub(crate) fn start_from_file(factory: Arc<FakeFactory>, file: &Path) -> Self {
        let examined = load_whole(Some(file), &Places::of_this_host()).unwrap();
        Self::start_from(factory, Some(file), examined, None)
    }

    /// A service whose socket has a group, ready.
    pub(crate) async fn start_for_group(group: Gid) -> Self {
        let mut examined = defaults();
        examined.config.server.socket_group = Some(group);
        let harness = Self::start_from(FakeFactory::new(), None, examined, None);
        harness.until_ready().await;
        harness
    }

    fn start_from(
        factory: Arc<FakeFactory>,
        file: Option<&Path>,
        examined: Examined,
        memory: Option<MemoryBudget>,
    ) -> Self {
        let plans = examined.config.templates.clone();
        let group = examined.config.server.socket_group;
        let metrics = Arc::new(Metrics::new(
            plans.iter().map(|plan| plan.spec.name.as_str()),
        ));
        let settings = CacheSettings {
            max_ttl: Some(Duration::from_secs(24 * 3600)),
            refill_at_once: 4,
            memory,
        };
        let cache = Cache::start(factory.mint(), plans, settings, metrics.clone());
        let stopping = Stopping::new();
        let reloader = Reloader::new(file, examined, cache.clone(), metrics.clone());
        let terms = Terms {
            group,
            ..Terms::default()
        };
        let service = Service::new(cache.clone(), metrics, stopping.clone(), reloader, terms);
        Self {
            router: router(service),
            cache,
            stopping,
            factory,
        }
    }

    pub(crate) async fn until_ready(&self) {
        self.until("the service is ready", || self.cache.readiness().ready)
            .await;
    }

    /// Waits for something that happens in the background.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        seen(what, async || is_so().then_some(())).await;
    }

    /// Waits until a number that grows stands still, and returns it. The clock stands meanwhile, and goes on by a turn
    /// only when no task of this process has anything to do: a slow machine takes longer, and sees the same.
    pub(crate) async fn until_still(&self, what: &str, number: impl Fn() -> usize) -> usize {
        tokio::time::pause();
        let (mut seen, mut still) = (0, 0);
        for _ in 0..TURNS_MAX {
            sleep(Duration::from_millis(1)).await;
            let now = number();
            still = if now == seen && now > 0 { still + 1 } else { 0 };
            seen = now;
            if still == STILL_TURNS {
                tokio::time::resume();
                return seen;
            }
        }
        panic!("{what}: goes on and on");
    }

    /// Any request.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Reply {
        // Who asks is this process, unless the test says otherwise.
        request.extensions_mut().get_or_insert_with(own_peer);
        let answer = timeout(PATIENCE, self.router.clone().oneshot(request))
            .await
            .expect("an answer in time");
        Reply::read(answer.unwrap()).await
    }

    /// A request without a body, through the Unix socket.
    pub(crate) async fn call(&self, method: Method, path: &str) -> Reply {
        self.send(request(method, path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path).await
    }

    /// A request with a JSON body.
    pub(crate) async fn call_with(&self, method: Method, path: &str, body: Value) -> Reply {
        let request = request(method, path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call_with(Method::POST, path, body).await
    }

    /// A sandbox's id.
    pub(crate) async fn checkout(&self) -> String {
        let sandbox = self.call(Method::POST, "/v1/sandboxes").await.ok(201);
        sandbox["id"].as_str().unwrap().to_owned()
    }
}

/// The user of this process.
pub(crate) fn own_peer() -> Peer {
    let caller = Caller::this_process().unwrap();
    Peer {
        uid: caller.uid(),
        gid: None,
    }
}

/// A request as the Unix socket brings it.
pub(crate) fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .extension(Origin::Unix)
        .extension(own_peer())
        .extension(Caller::this_process().unwrap())
}
