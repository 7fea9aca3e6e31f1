//! Templates: found, built, rebuilt.

use std::sync::atomic::Ordering;

use vmint_cache::{BuildState, BuildStep, OnEmpty, RebuildError, TemplateState, UnknownTemplate};

use crate::bench::{Bench, plan, pool_spec, request, request_with};
use crate::fake::{Build, FakeFactory, OnDisk};
use crate::time::pass;

fn bench_with(on_disk: OnDisk) -> Bench {
    let factory = FakeFactory::new();
    factory.script().on_disk = on_disk;
    Bench::of(&factory, vec![plan("default", pool_spec())])
}

#[tokio::test(start_paused = true)]
async fn a_valid_generation_is_used_and_nothing_is_built() {
    let bench = bench_with(OnDisk::Valid);
    assert!(!bench.cache.readiness().ready);
    bench.is_full().await;
    assert!(bench.cache.builds().is_empty() && bench.cache.readiness().ready);
    let template = bench.cache.template("default").unwrap();
    assert_eq!(
        (template.state, template.stale),
        (TemplateState::Ready, false)
    );
    assert_eq!(
        (template.generations.len(), template.generations[0].clones),
        (1, 2)
    );
    assert_eq!(
        template.current.as_ref(),
        Some(&template.generations[0].generation)
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_damaged_missing_or_unreadable_is_built() {
    for on_disk in [
        OnDisk::Stale,
        OnDisk::Damaged,
        OnDisk::Nothing,
        OnDisk::Unreadable,
    ] {
        let bench = bench_with(on_disk);
        bench
            .until("it is being built", |bench| {
                bench.factory.building.load(Ordering::SeqCst) == 1
            })
            .await;
        let template = bench.cache.template("default").unwrap();
        assert_eq!(
            (template.state, template.stale),
            (TemplateState::Building, on_disk == OnDisk::Stale)
        );
        assert_eq!(template.stale_fields.len(), usize::from(template.stale));
        assert_eq!(
            bench.cache.readiness().reasons,
            ["template default: it is being built (booting)"]
        );
        bench.is_full().await;
        assert!(!bench.cache.template("default").unwrap().stale);
        assert_eq!(bench.heard.count("build default ok"), 1);
        assert_eq!(bench.heard.count("startup default cold"), 1);
        assert_eq!(bench.heard.count("first_exec default cold"), 1);
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkout_waits_for_the_first_build_but_not_for_one_that_failed() {
    let bench = bench_with(OnDisk::Nothing);
    let fails = bench
        .cache
        .checkout(request_with(OnEmpty::Fail))
        .await
        .unwrap_err();
    assert_eq!(fails.code(), "template_unavailable", "{fails}");
    assert!(
        bench.cache.checkout(request()).await.is_ok(),
        "three seconds of build, five of wait"
    );
    bench.stops_clean().await;

    let bench = bench_with(OnDisk::Nothing);
    bench.factory.script().build = Build::Hangs;
    let late = bench.cache.checkout(request()).await.unwrap_err();
    assert_eq!(late.code(), "template_unavailable", "{late}");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_build_is_tried_again_until_it_succeeds() {
    let bench = bench_with(OnDisk::Nothing);
    bench.factory.script().builds = [Build::Fails, Build::Fails].into();
    bench
        .until("it has failed", |bench| {
            bench.cache.template("default").unwrap().state == TemplateState::Failed
        })
        .await;
    let error = bench.cache.template("default").unwrap().last_error.unwrap();
    assert_eq!(error, "booting: the guest did not answer within 120 s");
    assert!(bench.cache.readiness().reasons[0].contains("its build failed, and is tried again in"));
    let refused = bench.cache.checkout(request()).await.unwrap_err();
    assert_eq!(refused.code(), "template_unavailable", "{refused}");
    bench.is_full().await;
    assert_eq!(bench.heard.count("build default template_unavailable"), 2);
    assert_eq!(bench.cache.template("default").unwrap().last_error, None);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_is_refused_while_one_runs_and_replaces_unused_clones() {
    let bench = Bench::filled(pool_spec()).await;
    let old = bench.cache.template("default").unwrap().current.unwrap();
    let kept = bench.lease().await;
    let build = bench.cache.rebuild("default").unwrap();
    assert_eq!((build.state, build.step), (BuildState::Running, None));
    assert_eq!(
        bench.cache.rebuild("default"),
        Err(RebuildError::AlreadyRunning {
            build: build.id.clone()
        })
    );
    assert_eq!(
        bench.cache.rebuild("other"),
        Err(RebuildError::UnknownTemplate(UnknownTemplate {
            name: "other".to_owned()
        }))
    );
    assert_eq!(
        bench.cache.template("default").unwrap().build,
        Some(build.id.clone())
    );
    assert_eq!(
        bench.cache.template("default").unwrap().state,
        TemplateState::Ready,
        "it serves meanwhile"
    );

    let ended = bench.cache.build_ended(&build.id).await.unwrap();
    assert_eq!(
        (ended.state, ended.step),
        (BuildState::Succeeded, Some(BuildStep::Publishing))
    );
    let template = bench.cache.template("default").unwrap();
    assert_eq!(
        (template.current.clone(), template.build),
        (ended.generation, None)
    );
    bench
        .until("unused clones are of the new one", |bench| {
            let clones = bench.pool().clones;
            clones
                .iter()
                .all(|clone| clone.id == kept.id || clone.generation == template.current)
                && clones.len() == 3
        })
        .await;
    assert_eq!(bench.cache.sandbox(&kept.id).unwrap().generation, old);
    assert!(
        bench.cache.build_ended("nothing").await.is_none()
            && bench.cache.build("nothing").is_none()
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_rebuild_changes_nothing_and_is_not_tried_again() {
    let bench = Bench::filled(pool_spec()).await;
    let before = bench.cache.template("default").unwrap().current;
    bench.factory.script().build = Build::Fails;
    let build = bench.cache.rebuild("default").unwrap();
    let ended = bench.cache.build_ended(&build.id).await.unwrap();
    assert_eq!(
        (ended.state, ended.error.is_some()),
        (BuildState::Failed, true)
    );
    let template = bench.cache.template("default").unwrap();
    assert_eq!(
        (template.state, template.current),
        (TemplateState::Ready, before)
    );
    assert!(template.last_error.is_some() && bench.cache.readiness().ready);
    pass(std::time::Duration::from_secs(3600)).await;
    assert_eq!(bench.cache.builds().len(), 1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn two_templates_are_not_built_at_the_same_time() {
    let factory = FakeFactory::new();
    factory.script().on_disk = OnDisk::Nothing;
    let bench = Bench::of(
        &factory,
        vec![plan("default", pool_spec()), plan("other", pool_spec())],
    );
    bench
        .until("both are ready", |bench| bench.cache.readiness().ready)
        .await;
    assert_eq!(factory.building_most.load(Ordering::SeqCst), 1);
    assert_eq!(bench.cache.builds().len(), 2);
    bench.stops_clean().await;
}
