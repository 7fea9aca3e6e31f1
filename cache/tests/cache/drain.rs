//! Pools and a node that drain, and go on.

use std::sync::Arc;

use tokio::time::timeout;
use vmint_cache::{CheckoutError, ResumeError};

use crate::bench::{Bench, SECOND, plan, pool_spec, request};
use crate::fake::FakeFactory;
use crate::time::pass;

fn other() -> vmint_cache::CheckoutRequest {
    vmint_cache::CheckoutRequest {
        template: "other".to_owned(),
        ..request()
    }
}

async fn two_pools() -> Bench {
    let plans = vec![plan("default", pool_spec()), plan("other", pool_spec())];
    let bench = Bench::of(&FakeFactory::new(), plans);
    bench
        .until("both are filled", |bench| bench.cache.readiness().ready)
        .await;
    bench
}

#[tokio::test(start_paused = true)]
async fn a_pool_drains_alone_and_goes_on() {
    let bench = two_pools().await;
    let kept = bench.lease().await;
    let view = bench.cache.drain_pool("default").await.unwrap();
    assert!(view.draining && view.ready == 0 && view.leased == 1);
    let refused = bench.cache.checkout(request()).await.unwrap_err();
    assert!(matches!(refused, CheckoutError::Draining), "{refused}");
    assert_eq!(
        bench.cache.readiness().reasons,
        ["pool default: it is drained"]
    );
    assert!(bench.cache.checkout(other()).await.is_ok());
    pass(60 * SECOND).await;
    assert_eq!(bench.pool().clones.len(), 1);
    assert!(bench.cache.sandbox(&kept.id).is_ok());
    bench.cache.release(&kept.id).await.unwrap();
    assert!(bench.pool().clones.is_empty());
    assert!(!bench.cache.draining().draining);
    let view = bench.cache.resume_pool("default").await.unwrap();
    assert!(!view.draining);
    bench.is_full().await;
    bench.lease().await;
    assert!(bench.cache.drain_pool("nothing").await.is_err());
    let unknown = bench.cache.resume_pool("nothing").await.unwrap_err();
    assert!(matches!(unknown, ResumeError::UnknownTemplate { .. }));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_told() {
    let bench = Bench::filled(pool_spec()).await;
    for _ in 0..16 {
        bench.lease().await;
    }
    let cache = bench.cache.clone();
    let waits = tokio::spawn(async move { cache.checkout(request()).await.map(drop) });
    bench
        .until("it waits", |bench| bench.pool().waiters == 1)
        .await;
    bench.cache.drain(false).await;
    let refused = waits.await.unwrap().unwrap_err();
    assert!(matches!(refused, CheckoutError::Draining), "{refused}");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_drains_shows_how_far_and_goes_on() {
    let bench = two_pools().await;
    let kept = bench.lease().await;
    bench.cache.drain_pool("other").await.unwrap();
    let view = bench.cache.drain(false).await;
    assert!(view.draining && !view.drained && !view.exit);
    assert_eq!((view.ready, view.launching, view.leased), (0, 0, 1));
    let refused = bench.cache.checkout(other()).await.unwrap_err();
    assert_eq!(refused.code(), "draining");
    assert_eq!(
        bench.cache.readiness().reasons,
        ["the service is being drained"]
    );
    bench.cache.release(&kept.id).await.unwrap();
    bench
        .until("it is drained", |bench| bench.cache.draining().drained)
        .await;
    let on = bench.cache.resume_pool("default").await.unwrap();
    assert!(on.draining, "the node still drains");
    assert!(!bench.cache.resume().await.unwrap().draining);
    bench.is_full().await;
    let other = bench.cache.pool("other").unwrap();
    assert!(other.draining, "it was drained by itself");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_end_of_a_drain_is_told_of_it_once_it_is_to_end_the_service() {
    let bench = two_pools().await;
    let cache = bench.cache.clone();
    let mut exits = Box::pin(async move { cache.drained_to_exit().await });
    let kept = bench.lease().await;
    bench.cache.drain(false).await;
    assert!(timeout(60 * SECOND, &mut exits).await.is_err());
    let view = bench.cache.drain(true).await;
    assert!(view.exit && !view.drained);
    assert!(timeout(60 * SECOND, &mut exits).await.is_err());
    assert_eq!(bench.cache.resume().await, Err(ResumeError::Exits));
    bench.cache.release(&kept.id).await.unwrap();
    timeout(60 * SECOND, exits).await.unwrap();
    let alive = bench.factory.alive();
    assert!(alive.is_empty(), "{}", Arc::strong_count(&bench.factory));
    bench.stops_clean().await;
}
