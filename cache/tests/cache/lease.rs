//! The life of a lease: renewed, ended by time, released.

use std::time::Duration;

use futures::future::join;
use tokio::time::Instant;
use vmint_cache::{CheckoutRequest, RecordState, RenewError, UnknownSandbox};

use crate::bench::{Bench, SECOND, pool_spec, request};
use crate::time::pass;

fn lasting(ttl: Option<Duration>) -> CheckoutRequest {
    CheckoutRequest {
        ttl: Some(ttl),
        ..request()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_as_long_as_asked_or_as_the_pool_says() {
    let bench = Bench::filled(pool_spec()).await;
    let default = bench.lease().await;
    assert_eq!(
        default
            .expires_at
            .unwrap()
            .duration_since(default.leased_at)
            .as_secs(),
        300
    );
    let asked = bench
        .cache
        .checkout(lasting(Some(60 * SECOND)))
        .await
        .unwrap()
        .commit();
    assert_eq!(
        asked
            .expires_at
            .unwrap()
            .duration_since(asked.leased_at)
            .as_secs(),
        60
    );
    for too_long in [None, Some(3601 * SECOND)] {
        let error = bench.cache.checkout(lasting(too_long)).await.unwrap_err();
        assert_eq!(error.code(), "not_possible", "{error}");
        assert!(matches!(
            bench.cache.renew(&asked.id, too_long).await,
            Err(RenewError::Ttl(_))
        ));
    }
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_runs_out_ends_the_sandbox() {
    let bench = Bench::filled(pool_spec()).await;
    let begun = Instant::now();
    let id = bench
        .cache
        .checkout(lasting(Some(60 * SECOND)))
        .await
        .unwrap()
        .commit()
        .id;
    bench
        .until("it is gone", |bench| {
            !bench.factory.clone_of(&id).is_alive()
        })
        .await;
    assert!(begun.elapsed() >= 60 * SECOND && begun.elapsed() < 61 * SECOND);
    assert!(bench.cache.sandbox(&id).is_err());
    assert!(matches!(
        bench.cache.renew(&id, Some(SECOND)).await,
        Err(RenewError::UnknownSandbox { .. })
    ));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_lease_begins_anew() {
    let bench = Bench::filled(pool_spec()).await;
    let before = bench
        .cache
        .checkout(lasting(Some(60 * SECOND)))
        .await
        .unwrap()
        .commit();
    let begun = Instant::now();
    pass(50 * SECOND).await;
    let renewed = bench
        .cache
        .renew(&before.id, Some(100 * SECOND))
        .await
        .unwrap();
    assert!(renewed.expires_at > before.expires_at);
    assert_eq!(
        bench.cache.sandbox(&before.id).unwrap().expires_at,
        renewed.expires_at
    );
    let clone = bench.factory.clone_of(&before.id);
    let Some(RecordState::Leased(lease)) = clone.recorded() else {
        panic!("it is leased")
    };
    assert_eq!(lease.expires_at, renewed.expires_at);
    bench.until("it is gone", |_| !clone.is_alive()).await;
    assert!(begun.elapsed() >= 150 * SECOND);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_returns_when_the_process_is_gone_and_only_one_succeeds() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let (one, other) = join(bench.cache.release(&id), bench.cache.release(&id)).await;
    assert!(one.is_ok() && matches!(other, Err(UnknownSandbox { .. })));
    assert!(!bench.factory.clone_of(&id).is_alive());
    assert_eq!(
        (bench.pool().leased, bench.pool().releasing),
        (0, 0),
        "the view knows it as well"
    );
    assert!(bench.cache.release(&id).await.is_err());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_finds_a_sandbox_that_is_being_released() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let cache = bench.cache.clone();
    let releasing = tokio::spawn({
        let id = id.clone();
        async move { cache.release(&id).await }
    });
    bench
        .until("the release has begun", |bench| bench.pool().releasing == 1)
        .await;
    assert!(bench.cache.sandbox(&id).is_err());
    assert_eq!(
        bench.factory.clone_of(&id).recorded(),
        Some(RecordState::Releasing)
    );
    releasing.await.unwrap().unwrap();
    bench.stops_clean().await;
}
