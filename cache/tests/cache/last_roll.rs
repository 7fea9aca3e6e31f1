//! What is told of a template's last roll.

use vmint_cache::{LastRoll, RollOutcome, TemplateView};

use crate::bench::{Bench, plan, pool_spec};
use crate::fake::{FakeFactory, Launch};

fn template(bench: &Bench) -> TemplateView {
    bench.cache.template("default").unwrap()
}

async fn rebuilt(bench: &Bench) -> String {
    let build = bench.cache.rebuild("default").unwrap();
    let build = bench.cache.build_ended(&build.id).await.unwrap();
    build.generation.unwrap()
}

async fn outcome(bench: &Bench, wanted: RollOutcome) -> LastRoll {
    bench
        .until("the roll has ended", |bench| {
            let roll = template(bench).last_roll;
            roll.is_some_and(|roll| roll.outcome == wanted)
        })
        .await;
    template(bench).last_roll.unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_runs_and_ends_and_a_rollback_says_what_it_is_for() {
    let bench = Bench::of(&FakeFactory::new(), vec![plan("default", pool_spec())]);
    bench.is_full().await;
    let first = template(&bench).current.unwrap();
    assert_eq!(template(&bench).last_roll, None, "there was nothing before");
    let second = rebuilt(&bench).await;
    // It is there as soon as the build has ended.
    let roll = template(&bench).last_roll.unwrap();
    assert_eq!((&roll.from, &roll.to), (&first, &second));
    let roll = outcome(&bench, RollOutcome::Rolled).await;
    assert_eq!((roll.to, roll.reason), (second.clone(), None));

    bench.cache.rollback("default").await.unwrap();
    let roll = outcome(&bench, RollOutcome::Rolled).await;
    assert_eq!((roll.from, roll.to), (second, first));
    assert_eq!(roll.reason.as_deref(), Some("a rollback was asked for"));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_given_up_says_why() {
    let bench = Bench::of(&FakeFactory::new(), vec![plan("default", pool_spec())]);
    bench.is_full().await;
    let first = template(&bench).current.unwrap();
    bench.factory.script().of_generation = Some(Launch::Fails);
    let second = rebuilt(&bench).await;
    let roll = outcome(&bench, RollOutcome::RolledBack).await;
    assert_eq!((&roll.from, &roll.to), (&first, &second));
    let reason = roll.reason.unwrap();
    assert!(reason.contains("failed in a row"), "{reason}");
    assert_eq!(template(&bench).current, Some(first));
    bench.stops_clean().await;
}
