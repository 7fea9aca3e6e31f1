//! What followers hear.

use vmint_cache::{Event, Followed, Follower, Happening, Phase};

use crate::bench::{Bench, pool_spec, request, request_with};
use crate::fake::Launch;

async fn next(follower: &mut Follower) -> Event {
    match follower.next().await {
        Followed::Event(event) => (*event).clone(),
        lagged @ Followed::Lagged { .. } => panic!("{lagged:?}"),
    }
}

/// Reads on until something happens, and tells what.
async fn until(follower: &mut Follower, is_it: impl Fn(&Happening) -> bool) -> Happening {
    loop {
        let event = next(follower).await;
        assert_eq!(event.template, "default");
        if is_it(&event.what) {
            return event.what;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandboxes_life_is_told_in_order() {
    let bench = Bench::filled(pool_spec()).await;
    let mut follower = bench.cache.follow(None);
    let lease = bench.cache.checkout(request()).await.unwrap();
    let id = lease.view().id.clone();
    drop(lease);
    let view = bench.cache.checkout(request()).await.unwrap().commit();
    assert_ne!(id, String::new());
    let told = until(&mut follower, |what| {
        matches!(what, Happening::Checkout { .. })
    })
    .await;
    assert!(matches!(told, Happening::Checkout { sandbox, .. } if sandbox == view.id));
    bench.cache.release(&view.id).await.unwrap();
    let told = until(&mut follower, |what| {
        matches!(what, Happening::Release { .. })
    })
    .await;
    let (sandbox, reason) = (view.id.clone(), "it was released");
    let owner_uid = view.owner_uid;
    assert_eq!(
        told,
        Happening::Release {
            sandbox,
            owner_uid,
            reason
        }
    );
    let told = until(&mut follower, |what| {
        matches!(what, Happening::CloneEnded { .. })
    })
    .await;
    assert_eq!(
        told,
        Happening::CloneEnded {
            clone: view.id,
            owner_uid: Some(owner_uid),
            reason
        }
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_told() {
    let bench = Bench::start(pool_spec());
    let mut follower = bench.cache.follow(None);
    bench.factory.script().launches.push_back(Launch::Fails);
    let failed = until(&mut follower, |what| {
        matches!(what, Happening::CloneFailed { .. })
    })
    .await;
    assert!(
        matches!(&failed, Happening::CloneFailed { phase: Phase::Load, reason, .. } if reason == "the guest did not answer"),
        "{failed:?}"
    );
    until(&mut follower, |what| {
        matches!(what, Happening::CloneReady { .. })
    })
    .await;
    bench.is_full().await;
    let _all = [
        bench.cache.checkout(request()).await,
        bench.cache.checkout(request()).await,
    ];
    let empty = bench
        .cache
        .checkout(request_with(vmint_cache::OnEmpty::Fail))
        .await;
    assert!(empty.is_err());
    let told = until(&mut follower, |what| {
        matches!(what, Happening::CheckoutFailed { .. })
    })
    .await;
    assert_eq!(told, Happening::CheckoutFailed { code: "pool_empty" });
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn builds_are_told() {
    let bench = Bench::filled(pool_spec()).await;
    let mut follower = bench.cache.follow(None);
    let build = bench.cache.rebuild("default").unwrap().id;
    let begun = until(&mut follower, |what| {
        matches!(what, Happening::BuildStarted { .. })
    })
    .await;
    assert_eq!(
        begun,
        Happening::BuildStarted {
            build: build.clone()
        }
    );
    let ended = until(&mut follower, |what| {
        matches!(what, Happening::BuildSucceeded { .. })
    })
    .await;
    assert!(matches!(ended, Happening::BuildSucceeded { build: id, .. } if id == build));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn two_living_clones_with_the_same_random_numbers_are_one_too_many() {
    let bench = Bench::start(pool_spec());
    let mut follower = bench.cache.follow(None);
    bench.factory.script().not_reseeded = 3;
    let failed = until(&mut follower, |what| {
        matches!(what, Happening::CloneFailed { .. })
    })
    .await;
    let Happening::CloneFailed { phase, reason, .. } = failed else {
        unreachable!("it was asked for");
    };
    assert_eq!(phase, Phase::Identity);
    assert!(
        reason.contains("random numbers are those of the living clone"),
        "{reason}"
    );
    bench.is_full().await;
    assert_eq!(
        bench.heard.count("clone_failed default identity"),
        2,
        "one of the three may live"
    );
    assert_eq!(bench.factory.alive().len(), 2);
    // A mark goes with its clone: who comes later may have what an ended one had.
    bench.stops_clean().await;
}
