//! Checkouts that come twice.

use std::time::Duration;

use futures::future::join;
use tokio::time::advance;
use vmint_cache::{
    CheckedOut, CheckoutRequest, OnEmpty, PoolSpec, RecordState, RequestKey, SandboxView,
};

use crate::bench::{Bench, pool_spec, request};

/// How long a key is remembered after its sandbox has ended.
const REMEMBERED: Duration = Duration::from_secs(600);

fn keyed(key: &str, body: &str) -> CheckoutRequest {
    CheckoutRequest {
        idempotency: Some(RequestKey {
            key: key.to_owned(),
            body: body.to_owned(),
        }),
        ..request()
    }
}

async fn sandbox(bench: &Bench, request: CheckoutRequest) -> (SandboxView, bool) {
    match bench.cache.checkout_once(request).await.unwrap() {
        CheckedOut::New(lease) => (lease.commit(), true),
        CheckedOut::Again(view) => (*view, false),
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_request_gets_the_same_sandbox_and_another_is_a_conflict() {
    let bench = Bench::filled(pool_spec()).await;
    let (first, is_new) = sandbox(&bench, keyed("k", "a")).await;
    assert!(is_new);
    assert_eq!(
        sandbox(&bench, keyed("k", "a")).await,
        (first.clone(), false)
    );
    let other = bench
        .cache
        .checkout_once(keyed("k", "b"))
        .await
        .err()
        .unwrap();
    assert_eq!(other.code(), "conflict");
    let (second, is_new) = sandbox(&bench, keyed("l", "a")).await;
    assert!(is_new && second.id != first.id);
    assert_eq!(bench.heard.count("checkout default pool ok"), 2);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_is_remembered_for_ten_minutes_after_its_sandbox_has_ended() {
    let bench = Bench::filled(pool_spec()).await;
    let (first, _) = sandbox(&bench, keyed("k", "a")).await;
    bench.cache.release(&first.id).await.unwrap();
    advance(REMEMBERED - Duration::from_secs(1)).await;
    assert_eq!(
        sandbox(&bench, keyed("k", "a")).await,
        (first.clone(), false)
    );
    advance(Duration::from_secs(2)).await;
    let (second, is_new) = sandbox(&bench, keyed("k", "b")).await;
    assert!(is_new && second.id != first.id);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_at_once_one_is_done_and_the_other_waits_for_it() {
    let bench = Bench::start(PoolSpec {
        target: 0,
        ..pool_spec()
    });
    bench
        .until("it is ready", |bench| bench.cache.readiness().ready)
        .await;
    let request = || CheckoutRequest {
        on_empty: OnEmpty::Clone,
        ..keyed("k", "a")
    };
    let (one, two) = join(sandbox(&bench, request()), sandbox(&bench, request())).await;
    assert_eq!((one.1, two.1), (true, false));
    assert_eq!(one.0, two.0);
    assert_eq!(bench.pool().leased, 1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_failed_or_was_given_up_is_not_remembered() {
    let bench = Bench::filled(pool_spec()).await;
    bench.factory.script().hostnames_refused = 0;
    let failing = CheckoutRequest {
        template: "other".to_owned(),
        ..keyed("k", "a")
    };
    assert!(bench.cache.checkout_once(failing).await.is_err());
    let given_up = bench.cache.checkout_once(keyed("k", "b")).await.unwrap();
    // One that waits meanwhile is the next to try.
    let waiting = sandbox(&bench, keyed("k", "b"));
    let give_up = async { drop(given_up) };
    let (waited, ()) = join(waiting, give_up).await;
    assert!(waited.1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn the_key_is_in_the_record_of_the_lease_and_stays_there() {
    let bench = Bench::filled(pool_spec()).await;
    let (view, _) = sandbox(&bench, keyed("k", "a")).await;
    let recorded = || match bench.factory.clone_of(&view.id).recorded() {
        Some(RecordState::Leased(lease)) => lease.idempotency,
        other => panic!("{other:?}"),
    };
    assert_eq!(recorded(), keyed("k", "a").idempotency);
    let renewed = bench
        .cache
        .renew(&view.id, Some(Duration::from_secs(60)))
        .await;
    assert!(renewed.is_ok());
    assert_eq!(recorded(), keyed("k", "a").idempotency);
    bench.stops_clean().await;
}
