//! Generations that are not what would be built now.

use vmint_cache::{
    Followed, Happening, OnEmpty, OnStale, PoolSpec, TemplatePlan, TemplateState, TemplateView,
};

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

async fn becomes_stale(bench: &Bench) {
    bench.factory.script().recipe = 2;
    bench
        .until("it is noticed", |bench| template(bench).stale)
        .await;
}

async fn next_stale(events: &mut vmint_cache::Follower) -> (String, Vec<String>) {
    loop {
        if let Followed::Event(event) = events.next().await
            && let Happening::TemplateStale { generation, fields } = &event.what
        {
            return (generation.clone(), fields.clone());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn warn_only_shows_it_and_takes_it_back() {
    let bench = bench(OnStale::Warn, OnDisk::Valid);
    bench.is_full().await;
    let mut events = bench.cache.follow(None);
    becomes_stale(&bench).await;
    let view = template(&bench);
    let field = &view.stale_fields[0];
    let all = (&*field.field, &*field.built_with, &*field.now);
    assert_eq!(all, ("kernel", "1", "2"));
    let generation = view.current.clone().unwrap();
    let told = next_stale(&mut events).await;
    assert_eq!(told, (generation.clone(), vec!["kernel".to_owned()]));
    pass(3600 * SECOND).await;
    assert!(bench.cache.builds().is_empty() && bench.cache.readiness().ready);
    bench.lease().await;
    bench.factory.script().recipe = 1;
    bench
        .until("it matches again", |bench| !template(bench).stale)
        .await;
    assert_eq!(next_stale(&mut events).await, (generation, vec![]));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn rebuild_builds_by_itself_while_the_stale_one_serves() {
    let bench = bench(OnStale::Rebuild, OnDisk::Valid);
    bench.is_full().await;
    let before = template(&bench).current;
    bench.factory.build_gate.send_replace(false);
    becomes_stale(&bench).await;
    bench
        .until("a build begins", |bench| template(bench).build.is_some())
        .await;
    assert_eq!(template(&bench).state, TemplateState::Ready);
    bench.lease().await;
    bench.factory.build_gate.send_replace(true);
    bench
        .until("it is no longer stale", |bench| !template(bench).stale)
        .await;
    assert_ne!(template(&bench).current, before);
    bench.is_full().await;
    pass(3600 * SECOND).await;
    assert_eq!(bench.cache.builds().len(), 1);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn refuse_refuses_checkouts_until_it_is_rebuilt() {
    let bench = bench(OnStale::Refuse, OnDisk::Valid);
    bench.is_full().await;
    becomes_stale(&bench).await;
    let refused = bench.cache.checkout(request()).await.unwrap_err();
    assert_eq!(refused.code(), "template_unavailable");
    assert!(
        refused.to_string().contains("kernel: 1 was, 2 is"),
        "{refused}"
    );
    let readiness = bench.cache.readiness();
    assert!(readiness.reasons[0].contains("kernel"), "{readiness:?}");
    pass(3600 * SECOND).await;
    assert_eq!((bench.pool().ready, bench.cache.builds().len()), (2, 0));
    let build = bench.cache.rebuild("default").unwrap();
    bench.cache.build_ended(&build.id).await.unwrap();
    assert!(bench.cache.checkout(request()).await.is_ok());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_one_that_can_be_restored_serves_from_the_start() {
    for on_stale in [OnStale::Rebuild, OnStale::Warn, OnStale::Refuse] {
        let bench = bench(on_stale, OnDisk::Restorable);
        bench.factory.build_gate.send_replace(false);
        bench.is_full().await;
        let view = template(&bench);
        assert!(view.stale && view.state == TemplateState::Ready);
        assert_eq!(view.build.is_some(), on_stale == OnStale::Rebuild);
        let fail = request_with(OnEmpty::Fail);
        let served = bench.cache.checkout(fail).await.is_ok();
        assert_eq!(served, on_stale != OnStale::Refuse);
        bench.factory.build_gate.send_replace(true);
        if on_stale == OnStale::Rebuild {
            bench
                .until("it is rebuilt", |bench| !template(bench).stale)
                .await;
        }
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_restored_is_built_anew_whatever_on_stale_says() {
    for on_stale in [OnStale::Rebuild, OnStale::Warn, OnStale::Refuse] {
        let bench = bench(on_stale, OnDisk::Stale);
        bench.is_full().await;
        assert_eq!(bench.cache.builds().len(), 1);
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_went_back_to_is_left_alone_until_a_build_is_asked_for() {
    let bench = bench(OnStale::Rebuild, OnDisk::Valid);
    bench.is_full().await;
    let first = template(&bench).current;
    becomes_stale(&bench).await;
    bench
        .until("it is rebuilt", |bench| template(bench).current != first)
        .await;
    bench.is_full().await;
    let view = bench.cache.rollback("default").await.unwrap();
    assert_eq!((view.current, view.stale), (first.clone(), true));
    pass(3600 * SECOND).await;
    assert_eq!(template(&bench).current, first);
    let build = bench.cache.rebuild("default").unwrap();
    bench.cache.build_ended(&build.id).await.unwrap();
    assert!(!template(&bench).stale);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn generations_that_are_given_up_one_after_the_other_come_ever_more_slowly() {
    let pool = PoolSpec {
        target: 1,
        ..pool_spec()
    };
    let bench = Bench::of(&FakeFactory::new(), vec![plan("default", pool)]);
    bench.is_full().await;
    let first = template(&bench).current;
    bench.factory.script().of_generation = Some(Launch::Fails);
    becomes_stale(&bench).await;
    pass(3600 * SECOND).await;
    let built = bench.cache.builds().len();
    assert!(
        (12..=40).contains(&built),
        "{built} builds in an hour: it goes on trying, and not without end"
    );
    bench
        .until("between two tries the first one serves", |bench| {
            template(bench).current == first
        })
        .await;
    bench.stops_clean().await;
}
