//! A service that comes after one that was killed, or stopped while sandboxes were leased.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vmint_cache::{
    Binding, CheckedOut, CheckoutRequest, Leased, OnEmpty, OnStale, PoolSpec, RecordState,
    RequestKey, SandboxView, Source, Standby, TemplatePlan,
};

use vmint_factory::Argv;

use crate::bench::{Bench, SECOND, plan, pool_spec, request, request_with};
use crate::fake::{FakeFactory, OnDisk};

/// The service that comes next, on the same generation, with these settings.
fn next(factory: &Arc<FakeFactory>, pool: PoolSpec) -> Bench {
    let generation = factory
        .alive()
        .first()
        .map(|clone| clone.generation.clone());
    factory.script().found = generation;
    Bench::of(factory, vec![plan("default", pool)])
}

/// A service is killed, and another one comes.
async fn killed(bench: Bench, pool: PoolSpec) -> Bench {
    let factory = Arc::clone(&bench.factory);
    factory.service_dies();
    next(&factory, pool)
}

fn ids(bench: &Bench) -> Vec<String> {
    let alive = bench.factory.alive();
    alive.iter().map(|clone| clone.id.to_string()).collect()
}

/// The host's user who checks out.
const OWNER: u32 = 4001;

fn named(key: &str) -> CheckoutRequest {
    CheckoutRequest {
        owner_uid: OWNER,
        idempotency: Some(RequestKey {
            key: key.to_owned(),
            body: "body".to_owned(),
        }),
        ..request()
    }
}

/// As it was, but for what only the service that made it knew, and for when its guest was heard from.
fn same(before: &SandboxView, after: &SandboxView) -> bool {
    SandboxView {
        created_at: before.created_at,
        last_seen: before.last_seen,
        ..after.clone()
    } == *before
}

#[tokio::test(start_paused = true)]
async fn a_killed_service_loses_no_sandbox_and_no_ready_clone() {
    let bench = Bench::filled(pool_spec()).await;
    let CheckedOut::New(lease) = bench.cache.checkout_once(named("k")).await.unwrap() else {
        panic!("it is the first");
    };
    let leased = lease.commit();
    bench.is_full().await;
    let (before, memory) = (ids(&bench), bench.cache.memory_level());

    let bench = killed(bench, pool_spec()).await;
    let found = bench
        .cache
        .sandbox(&leased.id)
        .expect("it is found at once");
    assert!(same(&leased, &found), "{leased:?} {found:?}");
    assert_eq!(bench.cache.owner_of(&leased.id), Some(OWNER));
    let of = |uid| bench.cache.sandboxes_of(uid, None).len();
    assert_eq!((of(OWNER), of(OWNER + 1)), (1, 0));
    bench.is_full().await;
    assert_eq!(ids(&bench), before, "nothing was made and nothing ended");
    bench
        .until("it is ready", |bench| bench.cache.readiness().ready)
        .await;
    assert_eq!(
        bench.cache.memory_level(),
        memory,
        "a file that many hold is there once"
    );

    // Its key, its lease, its commands, its end.
    let CheckedOut::Again(again) = bench.cache.checkout_once(named("k")).await.unwrap() else {
        panic!("the key is known");
    };
    assert_eq!(again.id, leased.id);
    let renewed = bench.cache.renew(&leased.id, Some(900 * SECOND)).await;
    assert_ne!(renewed.unwrap().expires_at, leased.expires_at);
    assert_eq!(bench.lease().await.source, Source::Pool);
    assert!(
        before.contains(&bench.cache.sandboxes(None)[1].id),
        "a clone of before"
    );
    bench.cache.release(&leased.id).await.unwrap();
    assert!(!bench.factory.clone_of(&leased.id).is_alive());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_ready_clone_is_handed_out_with_the_first_answer() {
    for on_empty in [OnEmpty::Fail, OnEmpty::Clone, OnEmpty::Wait] {
        let bench = Bench::filled(pool_spec()).await;
        let before = ids(&bench);
        let bench = killed(bench, pool_spec()).await;
        let begun = Instant::now();
        let order = CheckoutRequest {
            wait: Duration::ZERO,
            ..request_with(on_empty)
        };
        let lease = bench.cache.checkout(order).await.unwrap();
        assert!(before.contains(&lease.view().id), "{on_empty:?}");
        assert!(begun.elapsed().is_zero(), "{on_empty:?}");
        drop(lease);
        bench.stops_clean().await;
    }
}

/// The next service finds this on disk.
async fn killed_over(on_disk: OnDisk, on_stale: OnStale) -> (Bench, Vec<String>) {
    let bench = Bench::filled(pool_spec()).await;
    let before = ids(&bench);
    let factory = Arc::clone(&bench.factory);
    factory.service_dies();
    factory.script().on_disk = on_disk;
    let plan = TemplatePlan {
        on_stale,
        ..plan("default", pool_spec())
    };
    (Bench::of(&factory, vec![plan]), before)
}

#[tokio::test(start_paused = true)]
async fn no_ready_clone_of_what_must_not_be_handed_out_is_handed_out() {
    for on_empty in [OnEmpty::Fail, OnEmpty::Clone, OnEmpty::Wait] {
        let (bench, _) = killed_over(OnDisk::Restorable, OnStale::Refuse).await;
        let refused = bench.cache.checkout(request_with(on_empty)).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), "template_unavailable", "{refused}");
        assert!(refused.to_string().contains("stale"), "{refused}");
        bench.stops_clean().await;
    }
    // Nothing can be restored of it here: another one is built, and those of before end.
    let (bench, before) = killed_over(OnDisk::Stale, OnStale::Warn).await;
    let lease = bench.lease().await;
    assert!(!before.contains(&lease.id), "{} of {before:?}", lease.id);
    let is_alive = |id: &String| bench.factory.clone_of(id).is_alive();
    assert!(!before.iter().any(is_alive));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_at_what_is_on_disk_is_not_waited_for_without_end() {
    let (bench, _) = killed_over(OnDisk::Hangs, OnStale::Rebuild).await;
    for (on_empty, asked, wait) in [
        (OnEmpty::Fail, 7 * SECOND, 5 * SECOND),
        (OnEmpty::Wait, 7 * SECOND, 7 * SECOND),
        (OnEmpty::Wait, SECOND, 5 * SECOND),
    ] {
        let begun = Instant::now();
        let order = CheckoutRequest {
            wait: asked,
            ..request_with(on_empty)
        };
        let refused = bench.cache.checkout(order).await.unwrap_err();
        assert_eq!(refused.code(), "template_unavailable", "{refused}");
        assert_eq!(begun.elapsed().as_secs(), wait.as_secs(), "{on_empty:?}");
    }
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_goes_on_running_out() {
    let bench = Bench::filled(pool_spec()).await;
    let short = CheckoutRequest {
        ttl: Some(Some(60 * SECOND)),
        ..request()
    };
    let id = bench.cache.checkout(short).await.unwrap().commit().id;
    let bench = killed(bench, pool_spec()).await;
    assert!(bench.cache.sandbox(&id).is_ok());
    let begun = Instant::now();
    let clone = bench.factory.clone_of(&id);
    bench
        .until("the lease has run out", |_| !clone.is_alive())
        .await;
    assert!(begun.elapsed() <= 61 * SECOND, "{:?}", begun.elapsed());
    assert!(bench.cache.sandbox(&id).is_err());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_was_being_made_somebodys_is_nobodys() {
    let bench = Bench::filled(pool_spec()).await;
    let bound = CheckoutRequest {
        binding: Binding {
            hostname: Some("job-17".to_owned()),
            ..Binding::default()
        },
        ..request()
    };
    // Bound, and not handed over yet: the record says so from before the guest is touched.
    let lease = bench.cache.checkout(bound).await.unwrap();
    let id = lease.view().id.clone();
    let clone = bench.factory.clone_of(&id);
    let states = clone.records.lock().unwrap().clone();
    assert!(
        matches!(
            states[..],
            [
                RecordState::Ready,
                RecordState::Preparing,
                RecordState::Leased(_)
            ]
        ),
        "{states:?}"
    );
    clone.records.lock().unwrap().pop();
    let bench = killed(bench, pool_spec()).await;
    assert!(!clone.is_alive(), "its guest has the name of somebody");
    bench.is_full().await;
    std::mem::forget(lease);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn ready_clones_that_were_made_for_other_settings_are_replaced() {
    let argv: Argv = vec!["true".into()];
    let with_commands = PoolSpec {
        on_clone: vec![argv],
        ..pool_spec()
    };
    let paused = PoolSpec {
        standby: Standby::Paused,
        ..pool_spec()
    };
    for other in [with_commands, paused] {
        let bench = Bench::filled(pool_spec()).await;
        let leased = bench.lease().await.id;
        bench.is_full().await;
        let before = ids(&bench);
        let bench = killed(bench, other).await;
        bench.is_full().await;
        let kept: Vec<_> = ids(&bench)
            .into_iter()
            .filter(|id| before.contains(id))
            .collect();
        assert_eq!(kept, [leased], "a sandbox is kept whatever the settings");
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn leased_sandboxes_go_on_when_the_service_stops() {
    let bench = Bench::filled(pool_spec()).await;
    let leased = bench.lease().await;
    bench.is_full().await;
    bench.cache.stop(30 * SECOND, Leased::GoOn).await;
    assert_eq!(
        ids(&bench),
        std::slice::from_ref(&leased.id),
        "those that nobody has end"
    );
    assert!(bench.cache.sandboxes(None).is_empty() && bench.pool().clones.is_empty());

    let bench = next(&Arc::clone(&bench.factory), pool_spec());
    assert!(same(&leased, &bench.cache.sandbox(&leased.id).unwrap()));
    bench.is_full().await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn they_go_on_also_when_the_stop_is_cut_off() {
    let factory = FakeFactory::new();
    factory.script().ends = false;
    let bench = Bench::of(&factory, vec![plan("default", pool_spec())]);
    bench.is_full().await;
    let leased = bench.lease().await;
    bench.cache.stop(SECOND, Leased::GoOn).await;
    drop(bench);
    assert!(factory.clone_of(&leased.id).is_alive());
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_lives_on_when_its_template_is_no_more() {
    let bench = Bench::filled(pool_spec()).await;
    let leased = bench.lease().await;
    bench.is_full().await;
    let factory = Arc::clone(&bench.factory);
    factory.service_dies();
    let bench = Bench::of(&factory, vec![plan("other", pool_spec())]);
    assert!(same(&leased, &bench.cache.sandbox(&leased.id).unwrap()));
    assert!(bench.cache.template("default").is_err() && bench.cache.pool("default").is_err());
    let unknown = bench.cache.checkout(request()).await.unwrap_err();
    assert_eq!(unknown.code(), "unknown_template");
    let renewed = bench.cache.renew(&leased.id, Some(900 * SECOND)).await;
    assert!(renewed.is_ok());
    bench.cache.release(&leased.id).await.unwrap();
    assert!(!factory.clone_of(&leased.id).is_alive());
    assert_eq!(*factory.forgotten.lock().unwrap(), ["default"]);
    bench.cache.stop(30 * SECOND, Leased::End).await;
    assert!(factory.alive().is_empty());
}
