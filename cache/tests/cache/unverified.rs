//! Generations that cannot be compared at present with what would be built now: a program is being replaced.

use std::sync::atomic::Ordering;

use tokio::time::Instant;
use vmint_cache::{OnEmpty, OnStale, PoolSpec, TemplatePlan, TemplateState, TemplateView};

use crate::bench::{Bench, SECOND, plan, pool_spec, request, request_with};
use crate::fake::{FakeFactory, Launch, OnDisk};
use crate::time::pass;

fn bench(on_stale: OnStale, on_disk: OnDisk) -> Bench {
    let factory = FakeFactory::new();
    factory.script().on_disk = on_disk;
    let plan = TemplatePlan {
        on_stale,
        ..plan("default", pool_spec())
    };
    Bench::of(&factory, vec![plan])
}

fn template(bench: &Bench) -> TemplateView {
    bench.cache.template("default").unwrap()
}

async fn is_unverified(bench: &Bench) {
    bench
        .until("it is noticed", |bench| {
            !template(bench).unverified_fields.is_empty()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_shown_and_nothing_is_rebuilt_or_refused() {
    for on_stale in [OnStale::Rebuild, OnStale::Warn, OnStale::Refuse] {
        let bench = bench(on_stale, OnDisk::Valid);
        bench.is_full().await;
        bench.factory.script().unreadable = Some("gone");
        is_unverified(&bench).await;
        let view = template(&bench);
        let unverified = &view.unverified_fields[0];
        assert_eq!(unverified.field, "kernel");
        assert_eq!(unverified.reason, "/boot/vmlinuz cannot be read: gone");
        assert!(!view.stale && view.stale_fields.is_empty());
        pass(3600 * SECOND).await;
        bench.lease().await;
        bench.factory.script().unreadable = None;
        bench
            .until("it can be compared again", |bench| {
                template(bench).unverified_fields.is_empty()
            })
            .await;
        assert!(bench.cache.builds().is_empty() && !template(&bench).stale);
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_as_another_is_stale_for_real() {
    let bench = bench(OnStale::Rebuild, OnDisk::Valid);
    bench.is_full().await;
    let before = template(&bench).current;
    bench.factory.script().unreadable = Some("gone");
    is_unverified(&bench).await;
    bench.factory.script().recipe = 2;
    bench.factory.script().unreadable = None;
    bench
        .until("it is rebuilt", |bench| template(bench).current != before)
        .await;
    assert_eq!(bench.cache.builds().len(), 1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_known_to_differ_still_does_while_it_cannot_be_read() {
    let bench = bench(OnStale::Refuse, OnDisk::Valid);
    bench.is_full().await;
    bench.factory.script().recipe = 2;
    bench
        .until("it is stale", |bench| template(bench).stale)
        .await;
    bench.factory.script().unreadable = Some("gone");
    is_unverified(&bench).await;
    let view = template(&bench);
    assert!(view.stale, "{view:?}");
    assert_eq!(view.stale_fields[0].now, "2");
    assert!(bench.cache.checkout(request()).await.is_err());
    bench.factory.script().recipe = 1;
    bench.factory.script().unreadable = None;
    bench
        .until("it matches again", |bench| !template(bench).stale)
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_compared_at_the_start_serves() {
    let bench = bench(OnStale::Refuse, OnDisk::Unverified);
    bench.factory.script().unreadable = Some("gone");
    bench.is_full().await;
    let view = template(&bench);
    assert_eq!(view.state, TemplateState::Ready);
    assert!(!view.stale && view.unverified_fields.len() == 1);
    bench.lease().await;
    assert!(bench.cache.builds().is_empty());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_hypervisor_is_away_degrades_and_recovers_and_rebuilds_nothing() {
    let bench = bench(OnStale::Rebuild, OnDisk::Valid);
    bench.is_full().await;
    let before = template(&bench).current;
    bench.factory.script().launch = Launch::LacksHypervisor;
    bench.factory.script().unreadable = Some("gone");
    for _ in 0..2 {
        bench.lease().await;
    }
    bench
        .until("it is degraded", |bench| bench.pool().degraded.is_some())
        .await;
    let reason = bench.pool().degraded.unwrap();
    assert!(reason.contains("cannot be read: gone"), "{reason}");
    let failed = bench.cache.checkout(request_with(OnEmpty::Fail)).await;
    assert_eq!(failed.unwrap_err().code(), "pool_empty");
    pass(20 * SECOND).await;
    bench.factory.script().launch = Launch::Up;
    bench.factory.script().unreadable = None;
    bench.is_full().await;
    assert_eq!(bench.pool().degraded, None);
    assert_eq!(template(&bench).current, before);
    assert!(bench.cache.builds().is_empty());
    bench.stops_clean().await;
}

/// Builds a generation whose clones fail by the host's fault: a minute later it is still on trial, and current.
async fn its_trial_goes_on(bench: &Bench) {
    let build = bench.cache.rebuild("default").unwrap();
    let build = bench.cache.build_ended(&build.id).await.unwrap();
    pass(60 * SECOND).await;
    let view = template(bench);
    assert_eq!(view.current, build.generation, "{:?}", view.last_error);
    assert_eq!(view.last_roll.unwrap().outcome.as_str(), "running");
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_is_not_given_up_because_the_hypervisor_is_away() {
    let pool = PoolSpec {
        target: 1,
        ..pool_spec()
    };
    let bench = Bench::of(&FakeFactory::new(), vec![plan("default", pool)]);
    bench.is_full().await;
    bench.factory.script().launch = Launch::LacksHypervisor;
    its_trial_goes_on(&bench).await;
    bench.factory.script().launch = Launch::Up;
    bench
        .until("it has rolled", |bench| {
            let roll = template(bench).last_roll;
            roll.is_some_and(|roll| roll.outcome.as_str() == "rolled")
        })
        .await;
    assert_eq!(bench.cache.builds().len(), 1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_is_not_given_up_because_the_run_directory_is_full() {
    let pool = PoolSpec {
        target: 1,
        ..pool_spec()
    };
    let bench = Bench::of(&FakeFactory::new(), vec![plan("default", pool)]);
    bench.is_full().await;
    bench.factory.script().is_run_dir_full = true;
    its_trial_goes_on(&bench).await;
    bench.factory.script().is_run_dir_full = false;
    bench
        .until("it has rolled", |bench| {
            let roll = template(bench).last_roll;
            roll.is_some_and(|roll| roll.outcome.as_str() == "rolled")
        })
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_no_descriptor_left_at_its_start_builds_nothing() {
    let bench = bench(OnStale::Rebuild, OnDisk::Unopened);
    let looks = |bench: &Bench| bench.factory.finds.load(Ordering::SeqCst);
    bench
        .until("it was looked at again", |bench| looks(bench) > 2)
        .await;
    let begun = Instant::now();
    pass(600 * SECOND).await;
    assert!(
        looks(&bench) < 200,
        "{} in {:?}",
        looks(&bench),
        begun.elapsed()
    );
    assert!(bench.cache.builds().is_empty());
    bench.factory.script().on_disk = OnDisk::Valid;
    bench.is_full().await;
    assert!(bench.cache.builds().is_empty());
    bench.stops_clean().await;
}
