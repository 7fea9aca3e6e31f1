//! From a request to a sandbox.

use std::time::Duration;

use futures::future::join_all;
use vmint_cache::{
    Binding, CheckoutError, CheckoutRequest, CloneState, OnEmpty, PoolSpec, RecordState, Resize,
    ResizeError, Source, Standby, UnknownTemplate,
};

use crate::bench::{Bench, SECOND, pool_spec, request, request_with};
use crate::fake::Launch;

pub(crate) fn named(hostname: &str) -> CheckoutRequest {
    CheckoutRequest {
        binding: Binding {
            hostname: Some(hostname.to_owned()),
            ..Binding::default()
        },
        ..request()
    }
}

#[tokio::test(start_paused = true)]
async fn a_filled_pool_serves_at_once_and_refills() {
    let bench = Bench::filled(pool_spec()).await;
    let lease = bench.cache.checkout(request()).await.unwrap();
    assert_eq!(
        (lease.view().source, lease.view().template.as_str()),
        (Source::Pool, "default")
    );
    assert!(
        bench.cache.sandboxes(None).is_empty(),
        "nobody finds it before it is handed over"
    );
    let view = lease.commit();
    assert_eq!(bench.cache.sandbox(&view.id), Ok(view.clone()));
    assert_eq!(
        bench.cache.sandboxes(Some("default")),
        std::slice::from_ref(&view)
    );
    assert!(bench.cache.sandboxes(Some("other")).is_empty());
    assert_eq!(
        (bench.pool().leased, bench.pool().hits, bench.pool().misses),
        (1, 1, 0)
    );
    assert!(matches!(
        bench.factory.clone_of(&view.id).recorded(),
        Some(RecordState::Leased(_))
    ));
    bench.is_full().await;
    assert_eq!(bench.heard.count("checkout default pool ok"), 1);
    assert_eq!(bench.heard.count("startup default clone"), 3);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn twenty_checkouts_at_once_with_two_ready_get_what_max_allows() {
    let bench = Bench::filled(pool_spec()).await;
    let results = join_all((0..20).map(|_| bench.cache.checkout(request()))).await;
    let (leases, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(
        (leases.len(), bench.pool().hits, bench.pool().misses),
        (16, 2, 18)
    );
    for error in errors {
        let text = error.unwrap_err().to_string();
        assert_eq!(
            text,
            "no clone was ready within 5000 ms: as many clones live as may (max 16): 16 leased, 0 being made, 0 being ended"
        );
    }
    assert_eq!(bench.heard.count("checkout default none pool_empty"), 4);
    assert_eq!(
        bench
            .factory
            .launching_most
            .load(std::sync::atomic::Ordering::SeqCst),
        2
    );
    drop(leases);
    bench.all_is_back().await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn one_who_wants_a_clone_gets_one_made_and_one_who_does_not_wait_gets_none() {
    let bench = Bench::start(PoolSpec {
        target: 0,
        ..pool_spec()
    });
    bench
        .until("it is ready", |bench| bench.cache.readiness().ready)
        .await;
    let refused = bench
        .cache
        .checkout(request_with(OnEmpty::Fail))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, CheckoutError::PoolEmpty { .. }),
        "{refused}"
    );
    let view = bench
        .cache
        .checkout(request_with(OnEmpty::Clone))
        .await
        .unwrap()
        .commit();
    assert_eq!(view.source, Source::Clone);
    assert!(view.checkout >= Duration::from_millis(50));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses() {
    let bench = Bench::filled(PoolSpec {
        target: 1,
        max: 1,
        queue: 1,
        ..pool_spec()
    })
    .await;
    let _held = bench.cache.checkout(request()).await.unwrap();
    let results = join_all((0..2).map(|_| bench.cache.checkout(request()))).await;
    let codes: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().unwrap_err().code())
        .collect();
    assert_eq!(codes, ["pool_empty", "queue_full"]);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_template_is_an_error() {
    let bench = Bench::start(pool_spec());
    let other = CheckoutRequest {
        template: "other".to_owned(),
        ..request()
    };
    assert_eq!(
        bench.cache.checkout(other).await.unwrap_err().code(),
        "unknown_template"
    );
    assert!(bench.cache.pool("other").is_err() && bench.cache.template("other").is_err());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_hostname_is_set_before_the_sandbox_is_handed_over() {
    let bench = Bench::filled(pool_spec()).await;
    let view = bench
        .cache
        .checkout(named("job-17"))
        .await
        .unwrap()
        .commit();
    assert_eq!(
        (
            view.hostname.as_str(),
            bench.cache.sandbox(&view.id).unwrap().hostname.as_str()
        ),
        ("job-17", "job-17")
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_take_its_name_is_discarded_and_another_tried() {
    let bench = Bench::start(pool_spec());
    bench.factory.script().hostnames_refused = 1;
    bench.is_full().await;
    let first = bench.pool().clones[0].id.clone();
    let view = bench
        .cache
        .checkout(named("job-17"))
        .await
        .unwrap()
        .commit();
    assert_ne!(view.id, first);
    bench
        .until("the first is gone", |bench| {
            !bench.factory.clone_of(&first).is_alive()
        })
        .await;
    assert_eq!(
        (bench.pool().hits, bench.pool().misses),
        (1, 0),
        "one checkout is counted once"
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn two_guests_that_do_not_take_their_names_are_an_error() {
    let bench = Bench::start(pool_spec());
    bench.factory.script().hostnames_refused = 2;
    bench.is_full().await;
    let error = bench.cache.checkout(named("job-17")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("guest_error", "the guest could not be bound")
    );
    bench.all_is_back().await;
    assert_eq!(bench.factory.alive().len(), 2);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_run_directory_is_no_guests_fault() {
    for (order, what) in [
        (request(), "the lease could not be recorded"),
        (named("job-17"), "what it is for could not be recorded"),
    ] {
        let bench = Bench::filled(pool_spec()).await;
        for clone in bench.factory.alive() {
            clone.is_out_of_room();
        }
        let error = bench.cache.checkout(order.clone()).await.unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("internal", what)
        );
        bench.all_is_back().await;
        assert_eq!(bench.factory.alive().len(), 2);
        assert!(
            bench.cache.checkout(order).await.is_ok(),
            "there is room again"
        );
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_gives_the_clone_back_unless_it_was_changed() {
    let bench = Bench::filled(pool_spec()).await;
    let lease = bench.cache.checkout(request()).await.unwrap();
    let returned = bench.factory.clone_of(&lease.view().id);
    drop(lease);
    bench
        .until("it is ready again", |bench| bench.pool().leased == 0)
        .await;
    assert!(returned.is_alive() && bench.pool().ready == 2);
    bench.all_is_back().await;
    let renamed = bench.cache.checkout(named("x")).await.unwrap();
    let id = renamed.view().id.clone();
    drop(renamed);
    bench.all_is_back().await;
    assert!(!bench.factory.clone_of(&id).is_alive());
    for clone in bench.factory.alive() {
        assert_eq!(clone.recorded(), Some(RecordState::Ready));
    }
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_stands_by_paused_is_resumed_and_not_taken_back() {
    let bench = Bench::filled(PoolSpec {
        standby: Standby::Paused,
        ..pool_spec()
    })
    .await;
    let lease = bench.cache.checkout(request()).await.unwrap();
    let clone = bench.factory.clone_of(&lease.view().id);
    assert!(clone.order.paused);
    assert_eq!(clone.resumed.load(std::sync::atomic::Ordering::SeqCst), 1);
    drop(lease);
    bench.until("it is gone", |_| !clone.is_alive()).await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_resized_and_impossible_sizes_are_refused() {
    let bench = Bench::filled(pool_spec()).await;
    let kept = bench.lease().await;
    let view = bench
        .cache
        .resize(
            "default",
            Resize {
                target: Some(5),
                max: None,
            },
        )
        .await
        .unwrap();
    assert_eq!((view.target, view.max), (5, 16));
    bench.is_full().await;
    bench
        .cache
        .resize(
            "default",
            Resize {
                target: Some(0),
                max: Some(1),
            },
        )
        .await
        .unwrap();
    bench.is_full().await;
    assert!(
        bench.factory.clone_of(&kept.id).is_alive(),
        "a leased one is never ended for it"
    );
    let above = bench
        .cache
        .resize(
            "default",
            Resize {
                target: Some(2),
                max: None,
            },
        )
        .await;
    assert_eq!(
        above,
        Err(ResizeError::TargetAboveMax { target: 2, max: 1 })
    );
    let too_many = bench
        .cache
        .resize(
            "default",
            Resize {
                target: None,
                max: Some(10_001),
            },
        )
        .await;
    assert_eq!(
        too_many,
        Err(ResizeError::TooMany {
            max: 10_001,
            limit: 10_000
        })
    );
    let unknown = bench.cache.resize("other", Resize::default()).await;
    assert_eq!(
        unknown,
        Err(ResizeError::UnknownTemplate(UnknownTemplate {
            name: "other".to_owned()
        }))
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn old_unused_clones_are_replaced() {
    let bench = Bench::filled(PoolSpec {
        max_age: 60 * SECOND,
        ..pool_spec()
    })
    .await;
    let before = bench.pool().clones;
    let are_gone = |bench: &Bench| {
        before
            .iter()
            .all(|clone| !bench.factory.clone_of(&clone.id).is_alive())
    };
    bench.until("the first ones are replaced", are_gone).await;
    assert!(bench.pool().ready >= 2, "the new ones are made first");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn the_view_of_a_pool_shows_every_clone() {
    let bench = Bench::filled(pool_spec()).await;
    bench.factory.script().launch = Launch::Hangs;
    let id = bench.lease().await.id;
    let pool = bench.pool();
    let mut states: Vec<CloneState> = pool.clones.iter().map(|clone| clone.state).collect();
    states.sort();
    assert_eq!(
        states,
        [CloneState::Launching, CloneState::Ready, CloneState::Leased]
    );
    assert!(
        pool.clones
            .iter()
            .any(|clone| clone.id == id && clone.state == CloneState::Leased)
    );
    assert!(
        pool.clones
            .iter()
            .all(|clone| clone.generation == bench.cache.template("default").unwrap().current)
    );
    bench
        .until("they were measured", |bench| {
            bench.cache.memory()[0].clone_private_bytes == 64 << 20
        })
        .await;
    bench.stops_clean().await;
}
