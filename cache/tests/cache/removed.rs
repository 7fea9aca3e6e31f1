//! Templates that are removed while the cache works, and what is left of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vmint_cache::{CheckoutError, Followed, Happening, PoolSpec, ReloadError};

use crate::bench::{Bench, SECOND, plan, pool_spec};
use crate::fake::{Build, FakeFactory, OnDisk};
use crate::reload::{names, of, reload, two};
use crate::time::pass;

#[tokio::test(start_paused = true)]
async fn a_removed_template_is_gone_at_once_and_its_leases_go_on() {
    let bench = two().await;
    let kept = bench.cache.checkout(of("other")).await.unwrap().commit();
    // In hand when the template goes: it is handed over all the same.
    let in_hand = bench.cache.checkout(of("other")).await.unwrap();
    let mut follower = bench.cache.follow(None);
    let done = reload(&bench, vec![plan("default", pool_spec())]).await;
    assert_eq!(
        (done.removed, done.unchanged),
        (names(&["other"]), names(&["default"]))
    );
    let Followed::Event(event) = follower.next().await else {
        panic!("nothing was lost");
    };
    assert_eq!(
        (event.template.as_str(), &event.what),
        ("other", &Happening::TemplateRemoved)
    );
    assert!(bench.cache.template("other").is_err() && bench.cache.pool("other").is_err());
    let refused = bench.cache.checkout(of("other")).await.unwrap_err();
    assert!(matches!(refused, CheckoutError::UnknownTemplate { .. }));
    assert!(bench.cache.readiness().ready);

    let in_hand = in_hand.commit();
    bench
        .until("unused clones have ended", |bench| {
            bench.factory.alive().len() == 4
        })
        .await;
    assert_eq!(bench.cache.sandboxes(Some("other")).len(), 2);
    assert!(bench.cache.sandbox(&in_hand.id).is_ok());
    bench
        .cache
        .renew(&kept.id, Some(20 * SECOND))
        .await
        .unwrap();
    let generation = || bench.factory.generations.lock().unwrap()[1].clone();
    bench.cache.release(&in_hand.id).await.unwrap();
    assert_eq!(generation().dropped.load(Ordering::SeqCst), 0);
    // The last lease runs out by itself.
    bench
        .until("its files go with the last of them", |_| {
            generation().dropped.load(Ordering::SeqCst) == 1
        })
        .await;
    assert_eq!(bench.factory.alive().len(), 2);
    assert_eq!(*bench.factory.forgotten.lock().unwrap(), ["other"]);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_hear_that_the_template_is_gone() {
    let pool = PoolSpec {
        target: 1,
        max: 1,
        ..pool_spec()
    };
    let bench = Bench::of(
        &FakeFactory::new(),
        vec![plan("default", pool.clone()), plan("other", pool)],
    );
    bench
        .until("both are ready", |bench| bench.cache.readiness().ready)
        .await;
    let kept = bench.cache.checkout(of("other")).await.unwrap().commit();
    let cache = bench.cache.clone();
    let waits = tokio::spawn(async move { cache.checkout(of("other")).await.map(|_| ()) });
    bench
        .until("it waits", |bench| {
            bench.cache.pool("other").unwrap().waiters == 1
        })
        .await;
    reload(&bench, vec![plan("default", pool_spec())]).await;
    let refused = waits.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), "unknown_template", "{refused}");
    bench.cache.release(&kept.id).await.unwrap();
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_can_come_back_while_the_old_one_still_has_sandboxes() {
    let bench = two().await;
    let old = bench.cache.checkout(of("other")).await.unwrap().commit();
    reload(&bench, vec![plan("default", pool_spec())]).await;
    let finds = bench.factory.finds.load(Ordering::SeqCst);
    let both = || vec![plan("default", pool_spec()), plan("other", pool_spec())];
    let done = reload(&bench, both()).await;
    assert_eq!(done.added, names(&["other"]));
    bench
        .until("it is ready", |bench| bench.cache.readiness().ready)
        .await;
    let looked = bench.factory.finds.load(Ordering::SeqCst) - finds;
    assert_eq!(looked, 0, "what is on disk is in use by the other");
    let new = bench.cache.checkout(of("other")).await.unwrap().commit();
    assert_ne!(new.generation, old.generation);
    assert_eq!(bench.cache.pool("other").unwrap().leased, 1);
    assert_eq!(bench.cache.sandboxes(Some("other")).len(), 2);
    bench.cache.release(&old.id).await.unwrap();
    assert!(bench.cache.sandbox(&new.id).is_ok());

    // Once nothing is left of it, what is on disk is looked at again.
    bench.cache.release(&new.id).await.unwrap();
    reload(&bench, vec![plan("default", pool_spec())]).await;
    bench
        .until("it is gone", |bench| bench.factory.alive().len() == 2)
        .await;
    pass(SECOND).await;
    reload(&bench, both()).await;
    bench
        .until("it is ready", |bench| bench.cache.readiness().ready)
        .await;
    assert_eq!(bench.factory.finds.load(Ordering::SeqCst) - finds, 1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_that_is_being_built_can_be_removed_and_the_last_one_too() {
    let factory = FakeFactory::new();
    factory.script().on_disk = OnDisk::Nothing;
    factory.script().build = Build::Hangs;
    let bench = Bench::of(&factory, vec![plan("default", pool_spec())]);
    bench
        .until("it is being built", |bench| {
            bench.factory.building.load(Ordering::SeqCst) == 1
        })
        .await;
    let build = bench.cache.builds()[0].id.clone();
    bench.factory.script().build = Build::Succeeds;
    let done = reload(&bench, vec![plan("only", pool_spec())]).await;
    assert_eq!(
        (done.added, done.removed),
        (names(&["only"]), names(&["default"]))
    );
    let ended = bench.cache.build_ended(&build).await.unwrap();
    assert_eq!(ended.error.as_deref(), Some("the template was removed"));
    bench
        .until("the new one is ready", |bench| {
            bench.cache.readiness().ready
        })
        .await;
    bench
        .cache
        .stop(30 * SECOND, vmint_cache::Leased::End)
        .await;
    assert!(factory.alive().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_sandboxes_of_removed_templates_and_refuses_reloads() {
    let bench = two().await;
    bench.cache.checkout(of("other")).await.unwrap().commit();
    reload(&bench, vec![plan("default", pool_spec())]).await;
    bench.cache.begin_stop();
    let late = bench.cache.reload(vec![plan("default", pool_spec())]).await;
    assert_eq!(late, Err(ReloadError::ShuttingDown));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_the_moment_a_removal_leaves_nothing() {
    for millis in (0..4_000).step_by(50) {
        let factory = FakeFactory::new();
        factory.script().on_disk = OnDisk::Nothing;
        let plans = vec![plan("other", pool_spec()), plan("default", pool_spec())];
        let bench = Bench::of(&factory, plans);
        pass(Duration::from_millis(millis)).await;
        reload(&bench, vec![plan("default", pool_spec())]).await;
        bench
            .until("the other is ready", |bench| bench.cache.readiness().ready)
            .await;
        bench
            .until("nothing else is left", |_| {
                let generations = factory.generations.lock().unwrap();
                let left = generations
                    .iter()
                    .filter(|one| one.dropped.load(Ordering::SeqCst) == 0);
                factory.alive().len() == 2 && left.count() == 1
            })
            .await;
        bench.stops_clean().await;
    }
}
