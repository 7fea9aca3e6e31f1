//! Sandboxes of an earlier version, whose guests cannot be talked to.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vmint_cache::{AgentState, CheckoutRequest, PoolSpec};

use crate::bench::{Bench, SECOND, plan, pool_spec, request};
use crate::time::pass;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A service whose predecessor had a sandbox and warm clones, all with an agent of an earlier version.
async fn upgraded(spec: PoolSpec) -> (Bench, String) {
    let bench = Bench::filled(spec.clone()).await;
    let long = CheckoutRequest {
        ttl: Some(Some(3600 * SECOND)),
        ..request()
    };
    let id = bench.cache.checkout(long).await.unwrap().commit().id;
    bench.is_full().await;
    let factory = bench.factory.clone();
    factory.service_dies();
    for clone in factory.alive() {
        clone.is_outdated.store(true, Ordering::SeqCst);
        clone.pings.store(0, Ordering::SeqCst);
        *clone.heard.lock().unwrap() = None;
    }
    let generation = factory.alive().first().map(|it| it.generation.clone());
    factory.script().found = generation;
    (Bench::of(&factory, vec![plan("default", spec)]), id)
}

#[tokio::test(start_paused = true)]
async fn an_outdated_sandbox_is_never_asked_and_can_be_renewed_and_released() {
    let spec = PoolSpec {
        guest_timeout: TIMEOUT,
        ..pool_spec()
    };
    let (bench, id) = upgraded(spec).await;
    let found = bench.cache.sandbox(&id).unwrap();
    assert_eq!(found.agent, AgentState::Outdated);
    pass(10 * TIMEOUT).await;
    let found = bench.cache.sandbox(&id).expect("it lives on");
    assert!(!found.unresponsive, "it owes no answer");
    let clone = bench.factory.clone_of(&id);
    assert_eq!(clone.pings.load(Ordering::SeqCst), 0);
    let pool = bench.cache.pool("default").unwrap();
    assert_eq!(pool.unresponsive, 0);

    let renewed = bench.cache.renew(&id, Some(900 * SECOND)).await.unwrap();
    assert_ne!(renewed.expires_at, found.expires_at);
    assert_eq!(bench.cache.console(&id).unwrap(), b"console");
    bench.cache.release(&id).await.unwrap();
    assert!(!clone.is_alive());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn an_outdated_clone_that_nobody_has_is_ended_and_not_handed_out() {
    let (bench, id) = upgraded(pool_spec()).await;
    bench
        .until("the clones of before are gone", |bench| {
            let outdated = |clone: &std::sync::Arc<crate::fake::Clone>| {
                clone.is_outdated.load(Ordering::SeqCst) && clone.id.as_str() != id
            };
            !bench.factory.alive().iter().any(outdated)
        })
        .await;
    let fresh = bench.lease().await;
    assert_eq!(fresh.agent, AgentState::Current);
    bench.cache.release(&id).await.unwrap();
    bench.stops_clean().await;
}
