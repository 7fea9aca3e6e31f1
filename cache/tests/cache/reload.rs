//! Other templates while the cache works.

use std::sync::atomic::Ordering;

use vmint_cache::{
    BuildState, CheckoutRequest, OnEmpty, PoolSpec, Reloaded, Resize, Standby, TemplatePlan,
    TemplateState,
};

use crate::bench::{Bench, SECOND, plan, pool_spec, request, request_with};
use crate::fake::{Build, FakeFactory, OnDisk};
use crate::time::pass;

pub(crate) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn of(template: &str) -> CheckoutRequest {
    CheckoutRequest {
        template: template.to_owned(),
        ..request()
    }
}

/// Two templates, filled.
pub(crate) async fn two() -> Bench {
    let plans = vec![plan("default", pool_spec()), plan("other", pool_spec())];
    let bench = Bench::of(&FakeFactory::new(), plans);
    bench
        .until("both are ready", |bench| bench.cache.readiness().ready)
        .await;
    bench
}

fn ids(bench: &Bench, template: &str) -> Vec<String> {
    let pool = bench.cache.pool(template).unwrap();
    pool.clones.into_iter().map(|clone| clone.id).collect()
}

/// A template whose guest has another command line.
fn other_guest(pool: PoolSpec) -> TemplatePlan {
    let mut plan = plan("default", pool);
    plan.spec.kernel_params = "quiet".to_owned();
    plan
}

pub(crate) async fn reload(bench: &Bench, plans: Vec<TemplatePlan>) -> Reloaded {
    bench.cache.reload(plans).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_template_is_added_and_the_others_are_not_touched() {
    let bench = Bench::filled(pool_spec()).await;
    let sandbox = bench.lease().await;
    bench.is_full().await;
    let resized = Resize {
        target: Some(3),
        max: None,
    };
    bench.cache.resize("default", resized).await.unwrap();
    bench.is_full().await;
    let before = bench.pool();

    let plans = vec![plan("another", pool_spec()), plan("default", pool_spec())];
    let done = reload(&bench, plans.clone()).await;
    assert_eq!(
        (done.added, done.unchanged),
        (names(&["another"]), names(&["default"]))
    );
    assert!(done.changed.is_empty() && done.removed.is_empty());
    let reasons = bench.cache.readiness().reasons;
    assert_eq!(
        reasons,
        ["template another: it is being looked for on disk"]
    );
    bench
        .until("it is ready", |bench| bench.cache.readiness().ready)
        .await;
    let listed = bench.cache.templates().into_iter().map(|one| one.name);
    assert_eq!(listed.collect::<Vec<_>>(), ["another", "default"]);
    let got = bench.cache.checkout(of("another")).await.unwrap().commit();
    assert_eq!(got.template, "another");

    let clones = |pool: &vmint_cache::PoolView| {
        let clones = pool.clones.iter().map(|clone| clone.id.clone());
        clones.collect::<Vec<_>>()
    };
    let after = bench.pool();
    assert_eq!(clones(&after), clones(&before));
    assert_eq!((after.target, after.hits, after.leased), (3, 1, 1));
    assert!(bench.cache.sandbox(&sandbox.id).is_ok());
    let done = reload(&bench, plans).await;
    assert_eq!(done.unchanged, names(&["another", "default"]));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn other_settings_of_a_pool_hold_and_only_for_it() {
    let bench = two().await;
    let (before, others) = (ids(&bench, "default"), ids(&bench, "other"));
    let pool = PoolSpec {
        target: 4,
        ttl: 60 * SECOND,
        ..pool_spec()
    };
    let plans = vec![plan("default", pool), plan("other", pool_spec())];
    let done = reload(&bench, plans).await;
    let keys = names(&["pool.target", "pool.ttl"]);
    assert_eq!(done.changed, [("default".to_owned(), keys)]);
    assert_eq!(done.unchanged, names(&["other"]));
    assert_eq!(bench.pool().target, 4, "it holds once it is answered");
    bench.is_full().await;
    assert!(ids(&bench, "default").starts_with(&before));
    assert_eq!(ids(&bench, "other"), others);
    let sandbox = bench.lease().await;
    let lease = sandbox
        .expires_at
        .unwrap()
        .duration_since(sandbox.leased_at);
    assert_eq!(lease.as_secs(), 60);
    assert!(bench.cache.builds().is_empty());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn the_files_sizes_hold_again_once_the_file_has_others() {
    let bench = Bench::filled(pool_spec()).await;
    let resized = Resize {
        target: Some(5),
        max: Some(20),
    };
    bench.cache.resize("default", resized).await.unwrap();
    let pool = PoolSpec {
        max: 8,
        ..pool_spec()
    };
    reload(&bench, vec![plan("default", pool)]).await;
    assert_eq!((bench.pool().target, bench.pool().max), (2, 8));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn clones_that_were_made_otherwise_are_replaced_and_fit_for_use_until_then() {
    let running = pool_spec();
    let paused = PoolSpec {
        standby: Standby::Paused,
        on_clone: vec![vec!["true".to_owned()]],
        ..pool_spec()
    };
    for (from, to) in [(running.clone(), paused.clone()), (paused, running)] {
        let bench = Bench::filled(from.clone()).await;
        let before = ids(&bench, "default");
        reload(&bench, vec![plan("default", to.clone())]).await;
        // At once, so that it is one of those that were made before.
        let sandbox = bench.lease().await;
        assert!(before.contains(&sandbox.id));
        let clone = bench.factory.clone_of(&sandbox.id);
        let was_paused = from.standby == Standby::Paused;
        assert_eq!(
            clone.resumed.load(Ordering::SeqCst),
            usize::from(was_paused)
        );
        bench
            .until("the others are replaced", |bench| {
                let clones = ids(bench, "default");
                clones.len() == 3 && clones.iter().filter(|id| before.contains(id)).count() == 1
            })
            .await;
        bench.is_full().await;
        for id in ids(&bench, "default")
            .iter()
            .filter(|id| **id != sandbox.id)
        {
            let order = bench.factory.clone_of(id).order.clone();
            assert_eq!(order.paused, to.standby == Standby::Paused);
            assert_eq!(order.on_clone, to.on_clone);
        }
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_guest_is_built_while_the_old_one_serves() {
    let bench = Bench::filled(pool_spec()).await;
    let old = bench.cache.template("default").unwrap().current;
    let done = reload(&bench, vec![other_guest(pool_spec())]).await;
    assert_eq!(
        done.changed,
        [("default".to_owned(), names(&["kernel_params"]))]
    );
    let template = bench.cache.template("default").unwrap();
    assert_eq!(
        (template.state, template.stale),
        (TemplateState::Ready, true)
    );
    let field = &template.stale_fields[0];
    assert_eq!(
        (
            field.field.as_str(),
            field.built_with.as_str(),
            field.now.as_str()
        ),
        ("kernel_params", "", "quiet")
    );
    let sandbox = bench.cache.checkout(request_with(OnEmpty::Fail)).await;
    assert_eq!(Some(sandbox.unwrap().commit().generation), old);
    assert!(bench.cache.readiness().ready);
    bench
        .until("it is built", |bench| {
            bench.cache.template("default").unwrap().current != old
        })
        .await;
    assert!(!bench.cache.template("default").unwrap().stale);
    assert_eq!(
        bench.factory.built.lock().unwrap()[0].kernel_params,
        "quiet"
    );
    bench.is_full().await;
    let new = bench.cache.template("default").unwrap().current;
    let clones = bench.pool().clones;
    assert!(
        clones
            .iter()
            .filter(|clone| clone.generation == new)
            .count()
            == 2
    );
    pass(3600 * SECOND).await;
    assert_eq!(bench.cache.builds().len(), 1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_build_that_makes_what_is_not_wanted_any_more_gives_way() {
    let factory = FakeFactory::new();
    factory.script().on_disk = OnDisk::Nothing;
    factory.script().builds = [Build::Hangs].into();
    let bench = Bench::of(&factory, vec![plan("default", pool_spec())]);
    bench
        .until("it is being built", |bench| {
            bench.factory.building.load(Ordering::SeqCst) == 1
        })
        .await;
    let first = bench.cache.builds()[0].id.clone();
    reload(&bench, vec![other_guest(pool_spec())]).await;
    let ended = bench.cache.build_ended(&first).await.unwrap();
    assert_eq!(ended.state, BuildState::Failed);
    assert!(ended.error.unwrap().contains("were changed meanwhile"));
    bench.is_full().await;
    let built = bench.factory.built.lock().unwrap().clone();
    assert_eq!((built.len(), built[0].kernel_params.as_str()), (1, "quiet"));
    assert_eq!(bench.cache.builds().len(), 2);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_mended_template_does_not_wait_for_the_next_try() {
    let factory = FakeFactory::new();
    factory.script().on_disk = OnDisk::Nothing;
    factory.script().builds = (0..8).map(|_| Build::Fails).collect();
    let bench = Bench::of(&factory, vec![plan("default", pool_spec())]);
    bench
        .until("it fails for good", |bench| {
            let reasons = bench.cache.readiness().reasons;
            reasons[0].contains("tried again in") && bench.cache.builds().len() == 8
        })
        .await;
    reload(&bench, vec![other_guest(pool_spec())]).await;
    let begun = tokio::time::Instant::now();
    bench.is_full().await;
    assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_as_it_was_again_needs_no_build() {
    let bench = Bench::filled(pool_spec()).await;
    bench.factory.script().builds = [Build::Fails].into();
    reload(&bench, vec![other_guest(pool_spec())]).await;
    bench
        .until("the build has failed", |bench| {
            let builds = bench.cache.builds();
            builds.len() == 1 && builds[0].state == BuildState::Failed
        })
        .await;
    assert!(bench.cache.template("default").unwrap().stale);
    reload(&bench, vec![plan("default", pool_spec())]).await;
    assert!(!bench.cache.template("default").unwrap().stale);
    pass(3600 * SECOND).await;
    assert_eq!(bench.cache.builds().len(), 1);
    bench.stops_clean().await;
}
