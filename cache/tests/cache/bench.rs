//! A cache over the fake factory, and how to wait for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use vmint_cache::{
    Cache, CacheSettings, CheckoutRequest, Leased, MemoryBudget, OnEmpty, OnStale, PoolSpec,
    PoolView, Source, Standby, StartPath, Telemetry, TemplatePlan,
};
use vmint_factory::{Phase, Phases, TemplateSpec};

use crate::fake::{FakeFactory, Shared};
use crate::time::takes;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Longest that anything is waited for; in the tests' own time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A cache under test.
pub(crate) struct Bench {
    pub cache: Cache,
    pub factory: Arc<FakeFactory>,
    pub heard: Arc<Heard>,
}

/// What the telemetry heard, a line each.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|heard| *heard == line)
            .count()
    }
}

impl Telemetry for Heard {
    fn checkout(&self, template: &str, source: Option<Source>, outcome: &'static str, _: Duration) {
        self.note(format!(
            "checkout {template} {} {outcome}",
            source.map_or("none", Source::as_str)
        ));
    }
    fn startup(&self, template: &str, path: StartPath, _: &Phases) {
        self.note(format!("startup {template} {}", path.as_str()));
    }
    fn first_exec(&self, template: &str, path: StartPath, _: Duration) {
        self.note(format!("first_exec {template} {}", path.as_str()));
    }
    fn exec(&self, template: &str, outcome: &'static str, _: Duration) {
        self.note(format!("exec {template} {outcome}"));
    }
    fn clone_failed(&self, template: &str, phase: Phase) {
        self.note(format!("clone_failed {template} {}", phase.as_str()));
    }
    fn build(&self, template: &str, outcome: &'static str, _: Duration) {
        self.note(format!("build {template} {outcome}"));
    }
}

pub(crate) fn pool_spec() -> PoolSpec {
    PoolSpec {
        target: 2,
        max: 16,
        refill: 2,
        standby: Standby::Running,
        on_clone: Vec::new(),
        max_age: Duration::ZERO,
        ttl: 300 * SECOND,
        queue: 64,
        guest_timeout: 60 * SECOND,
    }
}

pub(crate) fn plan(name: &str, pool: PoolSpec) -> TemplatePlan {
    let spec = TemplateSpec {
        max_vcpus: 4,
        max_memory_mib: 2048,
        ..TemplateSpec::new(name, PathBuf::from("/kernel"), PathBuf::from("/initrd"))
    };
    let on_stale = OnStale::Rebuild;
    TemplatePlan {
        spec,
        pool,
        on_stale,
    }
}

/// A checkout that waits up to five seconds.
pub(crate) fn request() -> CheckoutRequest {
    CheckoutRequest {
        template: "default".to_owned(),
        wait: 5 * SECOND,
        ..CheckoutRequest::default()
    }
}

pub(crate) fn request_with(on_empty: OnEmpty) -> CheckoutRequest {
    CheckoutRequest {
        on_empty,
        ..request()
    }
}

impl Bench {
    /// A cache of these templates, just started, on a host without limits.
    pub(crate) fn of(factory: &Arc<FakeFactory>, plans: Vec<TemplatePlan>) -> Self {
        Self::with_memory(factory, plans, None)
    }

    /// The same with so much memory.
    pub(crate) fn with_memory(
        factory: &Arc<FakeFactory>,
        plans: Vec<TemplatePlan>,
        memory: Option<MemoryBudget>,
    ) -> Self {
        let heard = Arc::new(Heard::default());
        let settings = CacheSettings {
            max_ttl: Some(3600 * SECOND),
            refill_at_once: 2,
            memory,
        };
        let mint = Arc::new(Shared::new(factory));
        let adopted = factory.adopted();
        let cache = Cache::start_with(adopted, mint, plans, settings, heard.clone());
        Self {
            cache,
            factory: Arc::clone(factory),
            heard,
        }
    }

    /// One template and its pool, just started.
    pub(crate) fn start(pool: PoolSpec) -> Self {
        Self::of(&FakeFactory::new(), vec![plan("default", pool)])
    }

    /// One template and its pool, filled.
    pub(crate) async fn filled(pool: PoolSpec) -> Self {
        let bench = Self::start(pool);
        bench.is_full().await;
        bench
    }

    pub(crate) fn pool(&self) -> PoolView {
        self.cache.pool("default").unwrap()
    }

    /// Waits for something.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}: {:?}",
                self.pool()
            );
            takes(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the pool is as it should be, and nothing is under way.
    pub(crate) async fn is_full(&self) {
        self.until("the pool is full", |bench| {
            let pool = bench.pool();
            pool.ready == pool.target as usize && pool.launching + pool.releasing == 0
        })
        .await;
    }

    /// Waits until so many are leased, nobody waits, and the pool is full.
    pub(crate) async fn all_but(&self, leased: usize) {
        self.until("the others are back", |bench| {
            bench.pool().leased == leased && bench.pool().waiters == 0
        })
        .await;
        self.is_full().await;
    }

    /// Waits until nobody has or wants a sandbox and the pool is full: soon, not when the leases end.
    pub(crate) async fn all_is_back(&self) {
        let begun = Instant::now();
        self.until("all is back", |bench| {
            bench.pool().leased + bench.pool().waiters == 0
        })
        .await;
        self.is_full().await;
        assert!(begun.elapsed() < 10 * SECOND, "a lease had to run out");
    }

    /// Stops, and checks that nothing is left.
    pub(crate) async fn stops_clean(&self) {
        self.cache.stop(30 * SECOND, Leased::End).await;
        assert!(
            self.factory.alive().is_empty(),
            "machines outlived the stop"
        );
        assert!(
            self.cache.sandboxes(None).is_empty(),
            "sandboxes outlived the stop"
        );
        assert!(self.pool().clones.is_empty(), "{:?}", self.pool());
        assert!(!self.cache.readiness().ready);
    }

    /// Checks one out and hands it over.
    pub(crate) async fn lease(&self) -> vmint_cache::SandboxView {
        self.cache.checkout(request()).await.unwrap().commit()
    }
}
