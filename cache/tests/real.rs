//! The cache over the real factory: real machines, made by a real QEMU from the real guest.
//!
//! It needs what `scripts/test` prepares: QEMU, the guest in `target/guest`, and as root the user `vmint`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub)]

#[path = "../../factory/tests/support/host.rs"]
mod host;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host::{LONG, guest_spec, new_folder, settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use vmint_cache::{
    Binding, BuildState, BuildStep, BuildView, Cache, CacheSettings, CheckoutRequest,
    DroppedGeneration, ExecRequest, Leased, MemoryBudget, OnStale, PoolSpec, RollOutcome, Source,
    Standby, StartPath, Telemetry, TemplatePlan, TemplateState,
};
use vmint_factory::{Factory, Phase, Phases, TemplateSpec};

/// Telemetry that nobody reads.
struct Silent;

impl Telemetry for Silent {
    fn checkout(&self, _: &str, _: Option<Source>, _: &'static str, _: Duration) {}
    fn startup(&self, _: &str, _: StartPath, _: &Phases) {}
    fn first_exec(&self, _: &str, _: StartPath, _: Duration) {}
    fn exec(&self, _: &str, _: &'static str, _: Duration) {}
    fn clone_failed(&self, _: &str, _: Phase) {}
    fn build(&self, _: &str, _: &'static str, _: Duration) {}
}

fn start(factory: &Factory, standby: Standby) -> Cache {
    start_with(factory, standby, guest_spec("default"), None)
}

fn start_with(
    factory: &Factory,
    standby: Standby,
    spec: TemplateSpec,
    memory: Option<MemoryBudget>,
) -> Cache {
    let pool = PoolSpec {
        target: 1,
        max: 4,
        refill: 1,
        standby,
        on_clone: vec![vec!["true".to_owned()]],
        max_age: Duration::ZERO,
        ttl: LONG,
        queue: 8,
        guest_timeout: LONG,
    };
    let settings = CacheSettings {
        max_ttl: None,
        refill_at_once: 2,
        memory,
    };
    Cache::start(
        Arc::new(factory.clone()),
        vec![TemplatePlan {
            spec,
            pool,
            on_stale: OnStale::Rebuild,
        }],
        settings,
        Arc::new(Silent),
    )
}

async fn until(cache: &Cache, what: &str, holds: impl Fn(&Cache) -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds(cache) {
        assert!(
            Instant::now() < deadline,
            "waited in vain until {what}: {:?} {:?}",
            cache.pool("default"),
            cache.template("default")
        );
        sleep(Duration::from_millis(10)).await;
    }
}

async fn is_full(cache: &Cache) {
    until(cache, "the pool is full", |cache| {
        cache.pool("default").unwrap().ready == 1
    })
    .await;
}

fn request() -> CheckoutRequest {
    CheckoutRequest {
        template: "default".to_owned(),
        wait: LONG,
        ..CheckoutRequest::default()
    }
}

async fn says(cache: &Cache, id: &str, command: &str) -> String {
    let words = ["sh", "-c", command].map(str::to_owned).to_vec();
    let outcome = cache.exec(id, ExecRequest::new(words, LONG)).await.unwrap();
    String::from_utf8(outcome.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Stops the cache, and looks that no machine is left.
async fn stop(cache: Cache, folder: &Path) {
    cache.stop(LONG, Leased::End).await;
    let left: Vec<_> = fs::read_dir(folder.join("run/vm"))
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_of_real_machines_running_and_paused() {
    let folder = new_folder().unwrap();
    let factory = Factory::open(settings(&folder), &guest_spec("default"))
        .await
        .unwrap();

    let cache = start(&factory, Standby::Running);
    is_full(&cache).await;
    assert!(cache.readiness().ready, "{:?}", cache.readiness());
    let named = CheckoutRequest {
        binding: Binding {
            hostname: Some("job-17".to_owned()),
            ..Binding::default()
        },
        ..request()
    };
    let one = cache.checkout(named).await.unwrap().commit();
    let two = cache.checkout(request()).await.unwrap().commit();
    assert_eq!(says(&cache, &one.id, "hostname").await, "job-17");
    assert_eq!(says(&cache, &two.id, "hostname").await, two.hostname);
    assert_ne!(one.machine_id, two.machine_id);
    cache.release(&one.id).await.unwrap();
    assert!(
        kill(Pid::from_raw(i32::try_from(one.pid).unwrap()), None).is_err(),
        "its process is gone"
    );
    let generation = cache.template("default").unwrap().current;
    stop(cache, &folder).await;

    let cache = start(&factory, Standby::Paused);
    is_full(&cache).await;
    assert_eq!(
        cache.template("default").unwrap().current,
        generation,
        "what is on disk is used again"
    );
    let asked = jiff::Timestamp::now().as_second();
    let paused = cache.checkout(request()).await.unwrap().commit();
    let clock: i64 = says(&cache, &paused.id, "date +%s").await.parse().unwrap();
    assert!(
        (clock - asked).abs() <= 5,
        "its clock is {} s off",
        clock - asked
    );
    stop(cache, &folder).await;
    drop(factory);
    fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_machine_is_replaced_and_a_flipped_bit_in_the_state_has_the_template_rebuilt() {
    let folder = new_folder().unwrap();
    let factory = Factory::open(settings(&folder), &guest_spec("default"))
        .await
        .unwrap();
    let cache = start(&factory, Standby::Running);
    is_full(&cache).await;

    let leased = cache.checkout(request()).await.unwrap().commit();
    kill(
        Pid::from_raw(i32::try_from(leased.pid).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    until(&cache, "the killed sandbox is gone", |cache| {
        cache.sandbox(&leased.id).is_err()
    })
    .await;
    is_full(&cache).await;

    let damaged = cache.template("default").unwrap().current.unwrap();
    let state = folder.join("template/default").join(&damaged).join("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&state)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1000).unwrap();

    let served = cache.checkout(request()).await.unwrap().commit();
    until(&cache, "the pool is degraded", |cache| {
        cache.pool("default").unwrap().degraded.is_some()
    })
    .await;
    let reason = cache.pool("default").unwrap().degraded.unwrap();
    assert!(reason.contains("phase load"), "{reason}");
    assert_eq!(says(&cache, &served.id, "echo alive").await, "alive");
    until(&cache, "it is rebuilt", |cache| {
        let template = cache.template("default").unwrap();
        template.state == TemplateState::Ready && template.current != Some(damaged.clone())
    })
    .await;
    is_full(&cache).await;
    assert!(cache.readiness().ready && cache.pool("default").unwrap().degraded.is_none());
    stop(cache, &folder).await;
    drop(factory);
    fs::remove_dir_all(&folder).unwrap();
}

/// The build, once it boots or has ended.
async fn boots(cache: &Cache, id: &str) -> BuildView {
    until(cache, "the build boots", |cache| {
        let build = cache.build(id).unwrap();
        build.step == Some(BuildStep::Booting) || build.state != BuildState::Running
    })
    .await;
    cache.build(id).unwrap()
}

/// With memory for two generations and a build there are two, whatever is to be kept: the older one gives way, and what
/// it had on its tmpfs is free before the next one boots.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_only_kept_gives_way_to_a_build() {
    const MIB: u64 = 1 << 20;
    // Two files of 129 MiB and what a build takes, 321 MiB, are too much, whatever the one clone has; one less is not.
    let memory = Some(MemoryBudget::of(570 * MIB, 1.0));
    let folder = new_folder().unwrap();
    let spec = TemplateSpec {
        memory_mib: 128,
        keep_generations: 3,
        ..guest_spec("default")
    };
    let factory = Factory::open(settings(&folder), &spec).await.unwrap();
    let cache = start_with(&factory, Standby::Running, spec, memory);
    is_full(&cache).await;
    let first = cache.template("default").unwrap().current.unwrap();
    let second = cache.rebuild("default").unwrap();
    let second = cache.build_ended(&second.id).await.unwrap();
    assert_eq!(second.state, BuildState::Succeeded, "{:?}", second.error);
    assert!(second.dropped.is_empty(), "there is room for two");
    until(&cache, "the pool has gone over", |cache| {
        let (pool, template) = (cache.pool("default"), cache.template("default"));
        let has_rolled = template.unwrap().last_roll.is_some_and(|roll| {
            Some(roll.to) == second.generation && roll.outcome == RollOutcome::Rolled
        });
        let pool = pool.unwrap();
        has_rolled && pool.ready == 1 && pool.releasing == 0
    })
    .await;
    let generations = folder.join("template/default");
    assert!(generations.join(&first).exists(), "it is kept");

    let third = cache.rebuild("default").unwrap();
    let third = boots(&cache, &third.id).await;
    assert_eq!(third.state, BuildState::Running, "{:?}", third.error);
    let dropped = DroppedGeneration {
        template: "default".to_owned(),
        generation: first.clone(),
    };
    assert_eq!(third.dropped, [dropped]);
    assert!(!generations.join(&first).exists(), "its memory is free");
    let kept = generations.join(second.generation.unwrap());
    assert!(kept.exists(), "the current one stays");
    // The build is cut off.
    stop(cache, &folder).await;
    drop(factory);
    fs::remove_dir_all(&folder).unwrap();
}
