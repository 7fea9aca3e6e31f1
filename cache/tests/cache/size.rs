//! Checkouts that ask for a size.

use std::sync::atomic::Ordering;

use vmint_cache::{CheckoutError, CheckoutRequest, RecordState, Size, SizeError, Standby};

use vmint_factory::KernelVersion;

use crate::bench::{Bench, plan, pool_spec, request};
use crate::fake::FakeFactory;

fn sized(vcpus: Option<u32>, memory_mib: Option<u64>) -> CheckoutRequest {
    CheckoutRequest {
        vcpus,
        memory_mib,
        ..request()
    }
}

#[tokio::test(start_paused = true)]
async fn a_warm_clone_grows_and_the_answer_and_the_record_say_so() {
    let bench = Bench::filled(pool_spec()).await;
    let lease = bench.cache.checkout(sized(Some(2), Some(500))).await;
    let view = lease.unwrap().commit();
    assert_eq!((view.vcpus, view.memory_mib), (2, 512));
    assert_eq!(view.source.as_str(), "pool");
    let size = Size {
        vcpus: 2,
        memory_mib: 512,
    };
    let clone = bench.factory.clone_of(&view.id);
    assert_eq!(*clone.grown.lock().unwrap(), Some(size));
    let Some(RecordState::Leased(lease)) = clone.recorded() else {
        panic!("{:?}", clone.recorded());
    };
    assert_eq!(lease.size, size);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn less_than_the_template_has_is_the_template() {
    let bench = Bench::filled(pool_spec()).await;
    let lease = bench.cache.checkout(sized(Some(1), Some(64))).await;
    let view = lease.unwrap().commit();
    assert_eq!((view.vcpus, view.memory_mib), (1, 256));
    let clone = bench.factory.clone_of(&view.id);
    assert_eq!(*clone.grown.lock().unwrap(), None, "nothing was plugged in");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn more_than_the_limit_is_refused_and_takes_no_clone() {
    let bench = Bench::filled(pool_spec()).await;
    for (vcpus, memory_mib) in [(Some(5), None), (None, Some(2049))] {
        let refused = bench.cache.checkout(sized(vcpus, memory_mib)).await;
        let error = refused.unwrap_err();
        assert!(
            matches!(error, CheckoutError::Size(SizeError::TooMuch { .. })),
            "{error}"
        );
        assert_eq!(error.code(), "not_possible");
    }
    assert_eq!((bench.pool().ready, bench.pool().hits), (2, 0));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_guests_kernel_refuses_is_refused_before_a_clone_is_taken() {
    let factory = FakeFactory::new();
    factory.script().refuses_vcpus = KernelVersion::parse("6.12.38+deb13-amd64");
    let bench = Bench::of(&factory, vec![plan("default", pool_spec())]);
    bench.is_full().await;
    for _ in 0..3 {
        let refused = bench.cache.checkout(sized(Some(2), Some(512))).await;
        let error = refused.unwrap_err();
        assert_eq!(error.code(), "not_possible", "{error}");
        let text = error.to_string();
        assert!(
            text.contains("kernel is 6.12") && text.contains("hint"),
            "{text}"
        );
    }
    assert_eq!((bench.pool().ready, bench.pool().hits), (2, 0));
    assert_eq!(
        factory.launches_begun.load(Ordering::SeqCst),
        2,
        "none was ended"
    );
    let lease = bench.cache.checkout(sized(Some(1), Some(512))).await;
    assert_eq!(lease.unwrap().commit().memory_mib, 512, "memory grows");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_does_not_grow_is_ended_and_one_more_is_tried() {
    let bench = Bench::start(pool_spec());
    bench.factory.script().growths_refused = 1;
    bench.is_full().await;
    let view = bench.cache.checkout(sized(Some(2), None)).await;
    assert_eq!(view.unwrap().commit().vcpus, 2);
    bench.is_full().await;
    let made = bench.factory.clones.lock().unwrap().len();
    assert_eq!(made - bench.factory.alive().len(), 1, "one was ended");

    let bench = Bench::start(pool_spec());
    bench.factory.script().growths_refused = 3;
    bench.is_full().await;
    let failed = bench.cache.checkout(sized(Some(2), None)).await;
    let error = failed.unwrap_err();
    assert!(matches!(error, CheckoutError::Guest { .. }), "{error}");
    bench.all_is_back().await;
    let made = bench.factory.clones.lock().unwrap().len();
    assert_eq!(made - bench.factory.alive().len(), 2, "two were ended");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_dropped_after_it_grew_ends_its_clone() {
    let mut spec = pool_spec();
    spec.standby = Standby::Paused;
    let bench = Bench::filled(spec).await;
    let lease = bench.cache.checkout(sized(Some(2), None)).await.unwrap();
    let id = lease.view().id.clone();
    drop(lease);
    bench.all_is_back().await;
    assert!(!bench.factory.clone_of(&id).is_alive());
    bench.stops_clean().await;
}
