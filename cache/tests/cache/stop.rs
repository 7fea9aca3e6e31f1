//! The stop, at every moment of a service's life.

use std::time::Duration;

use tokio::time::Instant;
use vmint_cache::{BuildState, CheckoutError, Leased, OnEmpty, PoolSpec, RebuildError};

use crate::bench::{Bench, SECOND, plan, pool_spec, request, request_with};
use crate::fake::{Build, FakeFactory, Launch, OnDisk};
use crate::time::pass;

fn bench_with(prepare: impl Fn(&FakeFactory)) -> Bench {
    let factory = FakeFactory::new();
    prepare(&factory);
    Bench::of(&factory, vec![plan("default", pool_spec())])
}

#[tokio::test(start_paused = true)]
async fn at_every_millisecond_of_the_start() {
    for millis in (0..3_200).step_by(50) {
        let bench = bench_with(|factory| factory.script().on_disk = OnDisk::Nothing);
        pass(Duration::from_millis(millis)).await;
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_looks_for_a_generation() {
    let bench = bench_with(|factory| factory.script().on_disk = OnDisk::Hangs);
    pass(SECOND).await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn while_it_builds() {
    let bench = bench_with(|factory| {
        factory.script().on_disk = OnDisk::Nothing;
        factory.script().build = Build::Hangs;
    });
    bench
        .until("a build runs", |bench| bench.cache.builds().len() == 1)
        .await;
    let id = bench.cache.builds()[0].id.clone();
    let cache = bench.cache.clone();
    let waiting = tokio::spawn(async move { cache.build_ended(&id).await });
    pass(SECOND).await;
    bench.stops_clean().await;
    let ended = waiting.await.unwrap().unwrap();
    assert_eq!(
        (ended.state, ended.error.as_deref()),
        (BuildState::Failed, Some("the service is stopping"))
    );
    assert_eq!(
        bench.cache.rebuild("default"),
        Err(RebuildError::ShuttingDown)
    );
}

#[tokio::test(start_paused = true)]
async fn while_a_failed_build_waits_for_its_next_try() {
    let bench = bench_with(|factory| {
        factory.script().on_disk = OnDisk::Nothing;
        factory.script().build = Build::Fails;
    });
    bench
        .until("it has failed twice", |bench| {
            bench.cache.builds().len() == 2
        })
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn while_clones_are_made_that_will_never_be_up() {
    let bench = bench_with(|factory| factory.script().launch = Launch::Hangs);
    bench
        .until("they are being made", |bench| bench.pool().launching == 2)
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn while_clones_fail() {
    let bench = bench_with(|factory| factory.script().launch = Launch::Fails);
    bench
        .until("the pool is degraded", |bench| {
            bench.pool().degraded.is_some()
        })
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn with_sandboxes_and_a_lease_that_is_not_handed_over() {
    let bench = Bench::filled(pool_spec()).await;
    let _leased = bench.lease().await;
    let lease = bench.cache.checkout(request()).await.unwrap();
    bench.stops_clean().await;
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn while_a_sandbox_is_released() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let cache = bench.cache.clone();
    let releasing = tokio::spawn(async move { cache.release(&id).await });
    bench
        .until("the release has begun", |bench| bench.pool().releasing == 1)
        .await;
    bench.stops_clean().await;
    releasing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_refused_at_once_and_sandboxes_live_until_the_end() {
    let bench = Bench::filled(PoolSpec {
        target: 1,
        max: 1,
        ..pool_spec()
    })
    .await;
    let id = bench.lease().await.id;
    let cache = bench.cache.clone();
    let waiting = tokio::spawn(async move { cache.checkout(request()).await });
    bench
        .until("somebody waits", |bench| bench.pool().waiters == 1)
        .await;
    let begun = Instant::now();
    bench.cache.begin_stop();
    assert!(matches!(
        waiting.await.unwrap(),
        Err(CheckoutError::ShuttingDown)
    ));
    assert!(begun.elapsed() < SECOND);
    let late = bench.cache.checkout(request_with(OnEmpty::Clone)).await;
    assert!(matches!(late, Err(CheckoutError::ShuttingDown)));
    assert_eq!(bench.cache.readiness().reasons, ["the service is stopping"]);
    assert!(bench.cache.sandbox(&id).is_ok() && bench.factory.clone_of(&id).is_alive());
    bench.cache.release(&id).await.unwrap();
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_does_not_end_is_let_go_after_the_deadline() {
    let bench = bench_with(|factory| factory.script().ends = false);
    bench.is_full().await;
    let begun = Instant::now();
    bench.cache.stop(10 * SECOND, Leased::End).await;
    assert!(
        begun.elapsed() >= 10 * SECOND && begun.elapsed() < 20 * SECOND,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_stop_is_none() {
    let bench = Bench::filled(pool_spec()).await;
    bench.stops_clean().await;
    bench.stops_clean().await;
}
