//! Clones that die, fall silent or cannot be made, and generations that are damaged.

use std::sync::atomic::Ordering;

use vmint_cache::{BuildState, CheckoutError, OnEmpty, PoolSpec, Standby, TemplateState};
use vmint_factory::GenerationId;

use crate::bench::{Bench, SECOND, plan, pool_spec, request, request_with};
use crate::fake::{FakeFactory, Launch};
use crate::time::pass;

#[tokio::test(start_paused = true)]
async fn a_ready_clone_that_died_is_replaced() {
    let bench = Bench::filled(pool_spec()).await;
    let dead = bench.factory.alive()[0].clone();
    dead.dies("killed");
    bench
        .until("the pool has noticed", |bench| bench.pool().ready < 2)
        .await;
    bench.is_full().await;
    assert_eq!(bench.factory.alive().len(), 2);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_died_a_moment_ago_is_not_handed_out() {
    let bench = Bench::filled(pool_spec()).await;
    // The pool cannot have noticed yet: nothing else runs between here and the checkout.
    bench
        .factory
        .alive()
        .iter()
        .for_each(|clone| clone.dies("killed"));
    let view = bench.lease().await;
    assert!(bench.factory.clone_of(&view.id).is_alive());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_dies_while_it_is_resumed_is_not_handed_out() {
    let factory = FakeFactory::new();
    // More than one failed preparation is an error; any number of deaths is only another clone.
    factory.script().resumes_deadly = 2;
    let pool = PoolSpec {
        standby: Standby::Paused,
        ..pool_spec()
    };
    let bench = Bench::of(&factory, vec![plan("default", pool)]);
    bench.is_full().await;
    let view = bench.lease().await;
    let clone = bench.factory.clone_of(&view.id);
    assert!(clone.is_alive());
    assert_eq!(clone.resumed.load(Ordering::SeqCst), 1);
    bench.is_full().await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_leased_clone_that_died_is_no_sandbox_any_more() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    bench.factory.clone_of(&id).dies("killed");
    bench
        .until("it is gone", |bench| bench.cache.sandbox(&id).is_err())
        .await;
    bench.is_full().await;
    assert!(bench.cache.release(&id).await.is_err());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_dies_while_it_is_being_released_is_released() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let release = bench.cache.release(&id);
    let clone = bench.factory.clone_of(&id);
    let (released, ()) = futures::future::join(release, async { clone.dies("killed") }).await;
    // Whichever was first: the sandbox is gone.
    drop(released);
    assert!(bench.cache.sandbox(&id).is_err());
    bench.is_full().await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_stops_answering_is_replaced() {
    let bench = Bench::filled(pool_spec()).await;
    let silent = bench.factory.alive()[0].clone();
    silent.falls_silent();
    bench.until("it was ended", |_| !silent.is_alive()).await;
    bench.is_full().await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn failures_degrade_the_pool_and_a_success_recovers_it() {
    let bench = Bench::start(pool_spec());
    bench.factory.script().launch = Launch::Fails;
    bench
        .until("it is degraded", |bench| bench.pool().degraded.is_some())
        .await;
    let reasons = bench.cache.readiness().reasons;
    assert_eq!(
        reasons,
        [
            "pool default: 3 clones failed in a row, the last in phase load: the guest did not answer"
        ]
    );
    let refused = bench
        .cache
        .checkout(request_with(OnEmpty::Fail))
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, CheckoutError::PoolEmpty { reason, .. } if reason.contains("failed in a row"))
    );
    assert!(bench.heard.count("clone_failed default load") >= 3);
    bench.factory.script().launch = Launch::Up;
    bench.is_full().await;
    assert_eq!(bench.pool().degraded, None);
    assert!(bench.cache.readiness().ready);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_panics_is_a_failure_like_any_other() {
    let bench = Bench::start(pool_spec());
    bench.factory.script().launches = [Launch::Panics, Launch::Fails].into();
    bench.is_full().await;
    assert_eq!(bench.factory.launches_begun.load(Ordering::SeqCst), 4);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_generation_is_rebuilt_while_ready_clones_are_served() {
    let bench = Bench::filled(pool_spec()).await;
    let damaged = bench.cache.template("default").unwrap().current;
    bench.factory.build_gate.send_replace(false);
    bench.factory.script().launches = [Launch::FindsDamage].into();
    let lease = bench.lease().await;
    bench
        .until("the template is being rebuilt", |bench| {
            bench.cache.template("default").unwrap().build.is_some()
        })
        .await;
    assert!(
        bench
            .pool()
            .degraded
            .unwrap()
            .contains("found in phase load of a clone: the digest of state is wrong")
    );
    assert_eq!(
        bench.cache.template("default").unwrap().state,
        TemplateState::Building
    );
    assert!(
        bench.cache.readiness().ready,
        "what is ready is still served"
    );
    let second = bench.lease().await;
    assert!(!bench.cache.readiness().ready, "nothing is ready any more");
    bench.factory.build_gate.send_replace(true);
    bench.is_full().await;
    let template = bench.cache.template("default").unwrap();
    assert_eq!(
        (template.state, bench.pool().degraded),
        (TemplateState::Ready, None)
    );
    assert!(template.current != damaged && bench.cache.readiness().ready);
    assert_eq!(
        template.generations.len(),
        2,
        "sandboxes of the old one live on"
    );
    assert_eq!(bench.cache.builds().len(), 1, "rebuilt once");
    let old = bench.factory.generations.lock().unwrap()[0].clone();
    assert_eq!(old.dropped.load(Ordering::SeqCst), 0);
    bench.cache.release(&lease.id).await.unwrap();
    bench.cache.release(&second.id).await.unwrap();
    bench
        .until("its files may go", |_| {
            old.dropped.load(Ordering::SeqCst) == 1
        })
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn damage_on_disk_is_noticed_while_nobody_needs_a_clone() {
    let bench = Bench::filled(pool_spec()).await;
    let damaged = bench.cache.template("default").unwrap().current;
    let id = damaged.as_deref().and_then(GenerationId::parse);
    bench.factory.script().damaged = id;
    bench
        .until("it is rebuilt and rolled", |bench| {
            let template = bench.cache.template("default").unwrap();
            template.current != damaged && bench.pool().roll.is_none()
        })
        .await;
    bench.is_full().await;
    pass(3600 * SECOND).await;
    assert_eq!(bench.cache.builds().len(), 1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_after_damage_that_fails_is_tried_again() {
    let bench = Bench::filled(pool_spec()).await;
    {
        let mut script = bench.factory.script();
        script.launches = [Launch::FindsDamage].into();
        script.builds = [crate::fake::Build::Fails, crate::fake::Build::Fails].into();
    }
    let _lease = bench.lease().await;
    bench
        .until("it has a sound generation again", |bench| {
            bench.cache.builds().len() == 3
        })
        .await;
    bench.is_full().await;
    let states: Vec<BuildState> = bench
        .cache
        .builds()
        .iter()
        .map(|build| build.state)
        .collect();
    assert_eq!(
        states,
        [
            BuildState::Succeeded,
            BuildState::Failed,
            BuildState::Failed
        ]
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn one_pool_that_fails_does_not_hold_up_another() {
    let factory = crate::fake::FakeFactory::new();
    let spec = PoolSpec {
        target: 1,
        ..pool_spec()
    };
    let plans = vec![
        crate::bench::plan("default", spec.clone()),
        crate::bench::plan("other", spec),
    ];
    factory.script().launches = [Launch::Hangs].into();
    let bench = Bench::of(&factory, plans);
    bench
        .until("one of them is full", |bench| {
            bench.cache.pools().iter().any(|pool| pool.ready == 1)
        })
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_checkout_waits_out_a_short_failure() {
    let bench = Bench::filled(PoolSpec {
        target: 1,
        max: 2,
        ..pool_spec()
    })
    .await;
    bench.factory.script().launches = [Launch::Fails].into();
    let _one = bench.lease().await;
    let begun = tokio::time::Instant::now();
    let _two = bench.lease().await;
    assert!(begun.elapsed() < 5 * SECOND);
    drop(request());
    bench.stops_clean().await;
}
