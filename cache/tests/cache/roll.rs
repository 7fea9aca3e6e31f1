//! A new generation under a pool that works, and the way back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use vmint_cache::{BuildState, Happening, RollbackError, TemplateState};

use crate::bench::{Bench, SECOND, pool_spec, request};
use crate::fake::{Build, Launch};
use crate::time::pass;

/// Builds a generation whose clones come up so, and waits for its end.
async fn rebuilt(bench: &Bench, launch: Option<Launch>) -> String {
    bench.factory.script().of_generation = launch;
    let build = bench.cache.rebuild("default").unwrap();
    let ended = bench.cache.build_ended(&build.id).await.unwrap();
    assert_eq!(ended.state, BuildState::Succeeded);
    ended.generation.unwrap()
}

async fn rolled(bench: &Bench) {
    bench
        .until("the roll is over", |bench| bench.pool().roll.is_none())
        .await;
    bench.is_full().await;
}

fn current(bench: &Bench) -> String {
    let template = bench.cache.template("default").unwrap();
    template.current.unwrap()
}

/// Checks one out every 100 ms and keeps it for 150 ms, until the roll is over. No checkout may have to wait.
async fn constant_checkouts(bench: &Bench) -> usize {
    let mut done = 0;
    let mut held = None;
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let lease = bench.cache.checkout(request()).await.unwrap().commit();
        assert_eq!(asked.elapsed(), Duration::ZERO, "checkout {done} waited");
        done += 1;
        if let Some(before) = held.replace(lease.id) {
            bench.cache.release(&before).await.unwrap();
        }
        let is_building = bench.cache.template("default").unwrap().build.is_some();
        assert!(done < 2000, "the roll has no end: {:?}", bench.pool());
        if begun.elapsed() > 5 * SECOND && !is_building && bench.pool().roll.is_none() {
            break;
        }
        pass(Duration::from_millis(80)).await;
    }
    bench.cache.release(&held.unwrap()).await.unwrap();
    done
}

#[tokio::test(start_paused = true)]
async fn no_checkout_fails_or_waits_because_of_a_rebuild() {
    for launch in [
        None,
        Some(Launch::UpAfter(SECOND / 10)),
        Some(Launch::Fails),
        Some(Launch::FindsDamage),
        Some(Launch::Hangs),
    ] {
        let bench = Bench::filled(pool_spec()).await;
        let before = current(&bench);
        bench.factory.script().of_generation = launch;
        bench.cache.rebuild("default").unwrap();
        let done = constant_checkouts(&bench).await;
        assert!(done > 40, "{launch:?}: {done}");
        let is_good = matches!(launch, None | Some(Launch::UpAfter(_)));
        assert_eq!(current(&bench) != before, is_good, "{launch:?}");
        bench.all_is_back().await;
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_pool_shows_how_far_it_is() {
    let bench = Bench::filled(pool_spec()).await;
    let old = current(&bench);
    let kept = bench.lease().await;
    bench.is_full().await;
    let mut events = bench.cache.follow(None);
    let new = rebuilt(&bench, Some(Launch::UpAfter(10 * SECOND))).await;
    bench
        .until("a clone is on its way", |bench| {
            let roll = bench.pool().roll;
            roll.is_some_and(|roll| roll.deadline.is_some())
        })
        .await;
    let pool = bench.pool();
    let roll = pool.roll.unwrap();
    assert_eq!((&roll.from, &roll.to), (&old, &new));
    assert_eq!((roll.updated, roll.ready, roll.target), (0, 2, 2));
    assert!(roll.deadline.unwrap() <= 60 * SECOND);
    assert_eq!((pool.updated, pool.ready), (0, 2));
    bench
        .until("one has joined", |bench| bench.pool().updated == 1)
        .await;
    assert_eq!(bench.pool().ready, 2);
    rolled(&bench).await;
    assert_eq!((bench.pool().updated, bench.pool().ready), (2, 2));
    assert!(bench.cache.sandbox(&kept.id).is_ok());
    let mut rolls = Vec::new();
    while rolls.len() < 2 {
        if let vmint_cache::Followed::Event(event) = events.next().await
            && matches!(
                event.what,
                Happening::RollBegun { .. } | Happening::Rolled { .. }
            )
        {
            rolls.push(event.what.clone());
        }
    }
    let begun = Happening::RollBegun {
        from: old,
        to: new.clone(),
    };
    assert_eq!(rolls, [begun, Happening::Rolled { generation: new }]);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_generation_whose_clones_fail_is_given_up_by_itself() {
    let bench = Bench::filled(pool_spec()).await;
    let old = current(&bench);
    let new = rebuilt(&bench, Some(Launch::Fails)).await;
    rolled(&bench).await;
    let template = bench.cache.template("default").unwrap();
    assert_eq!(template.current, Some(old.clone()));
    assert_eq!(template.state, TemplateState::Ready);
    let error = template.last_error.unwrap();
    let expected = format!("generation {new} was given up, and {old} is current again: 3 clones");
    assert!(error.starts_with(&expected), "{error}");
    bench
        .until("the disk is where the pool is", |bench| {
            bench.factory.current_on_disk() == old
        })
        .await;
    assert!(bench.cache.readiness().ready && bench.pool().degraded.is_none());
    pass(3600 * SECOND).await;
    assert_eq!(bench.cache.builds().len(), 1, "nobody asked for another");
    let good = rebuilt(&bench, None).await;
    rolled(&bench).await;
    let template = bench.cache.template("default").unwrap();
    assert_eq!((template.current, template.last_error), (Some(good), None));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn the_generation_before_is_held_while_it_may_be_gone_back_to_and_no_longer() {
    let bench = Bench::filled(pool_spec()).await;
    let old = bench.factory.generations.lock().unwrap()[0].clone();
    let kept = bench.lease().await;
    bench.is_full().await;
    rebuilt(&bench, Some(Launch::UpAfter(10 * SECOND))).await;
    assert_eq!(old.dropped.load(Ordering::SeqCst), 0);
    rolled(&bench).await;
    assert_eq!(old.dropped.load(Ordering::SeqCst), 0, "a sandbox has it");
    bench.cache.release(&kept.id).await.unwrap();
    bench
        .until("nobody holds it", |_| {
            old.dropped.load(Ordering::SeqCst) == 1
        })
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_goes_back_by_hand_and_forth_by_a_build() {
    let bench = Bench::filled(pool_spec()).await;
    let first = current(&bench);
    let none = bench.cache.rollback("default").await.unwrap_err();
    assert!(matches!(none, RollbackError::Impossible(_)), "{none}");
    let second = rebuilt(&bench, None).await;
    rolled(&bench).await;
    let kept = bench.lease().await;
    let view = bench.cache.rollback("default").await.unwrap();
    assert_eq!(view.current, Some(first.clone()));
    assert_eq!(view.generations[0].generation, first);
    assert_eq!(view.generations[1].generation, second);
    assert_eq!(bench.factory.current_on_disk(), first);
    rolled(&bench).await;
    let pool = bench.pool();
    assert_eq!((pool.updated, pool.leased), (2, 1));
    assert_eq!(bench.cache.sandbox(&kept.id).unwrap().generation, second);
    let unknown = bench.cache.rollback("other").await.unwrap_err();
    assert!(matches!(unknown, RollbackError::UnknownTemplate { .. }));
    bench.factory.build_gate.send_replace(false);
    let build = bench.cache.rebuild("default").unwrap();
    let busy = bench.cache.rollback("default").await.unwrap_err();
    assert!(matches!(busy, RollbackError::Building { build: id } if id == build.id));
    bench.factory.build_gate.send_replace(true);
    bench.cache.build_ended(&build.id).await.unwrap();
    rolled(&bench).await;
    assert_ne!(current(&bench), first);
    bench.cache.begin_stop();
    let stops = bench.cache.rollback("default").await.unwrap_err();
    assert!(matches!(stops, RollbackError::ShuttingDown));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_roll_that_fails_while_the_next_build_runs_goes_back_at_once() {
    let bench = Bench::filled(pool_spec()).await;
    let old = current(&bench);
    rebuilt(&bench, Some(Launch::Hangs)).await;
    bench.factory.script().of_generation = None;
    bench.factory.build_gate.send_replace(false);
    let build = bench.cache.rebuild("default").unwrap();
    rolled(&bench).await;
    assert_eq!(current(&bench), old);
    bench
        .until("the disk is where the pool is", |bench| {
            bench.factory.current_on_disk() == old
        })
        .await;
    bench.factory.build_gate.send_replace(true);
    let ended = bench.cache.build_ended(&build.id).await.unwrap();
    rolled(&bench).await;
    assert_eq!(Some(current(&bench)), ended.generation);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn an_earlier_generation_stands_in_for_a_damaged_one() {
    let bench = Bench::filled(pool_spec()).await;
    let first = current(&bench);
    rebuilt(&bench, None).await;
    rolled(&bench).await;
    bench.factory.build_gate.send_replace(false);
    bench.factory.script().launches = [Launch::FindsDamage].into();
    bench.factory.script().builds = [Build::Fails].into();
    bench.lease().await;
    bench
        .until("the one before stands in", |bench| current(bench) == first)
        .await;
    rolled(&bench).await;
    let template = bench.cache.template("default").unwrap();
    assert!(template.build.is_some() && template.state == TemplateState::Ready);
    bench.factory.build_gate.send_replace(true);
    bench
        .until("it is built, at the second try", |bench| {
            current(bench) != first
        })
        .await;
    assert_eq!(bench.cache.builds().len(), 3);
    rolled(&bench).await;
    bench.stops_clean().await;
}
