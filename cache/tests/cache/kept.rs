//! Generations that are only kept to go back to give way to what needs their memory.

use futures::FutureExt;
use vmint_cache::{
    BuildState, BuildView, DroppedGeneration, Followed, Follower, Happening, MemoryBudget,
    PoolSpec, Resize,
};

use crate::bench::{Bench, SECOND, plan, pool_spec, request};
use crate::fake::{Build, FakeFactory, Launch};

const MIB: u64 = 1024 * 1024;
/// What a generation of the fake factory counts for, with what is beside its memory.
const FILE_MIB: u64 = 257;
const CLONE_MIB: u64 = 32;
/// Three files, the pool of two, and a build short of what it takes beside its file.
const THREE_FILES_MIB: u64 = 3 * FILE_MIB + 2 * CLONE_MIB + 100;

fn bench(budget_mib: u64, pool: PoolSpec) -> Bench {
    let memory = Some(MemoryBudget::of(budget_mib * MIB, 1.0));
    Bench::with_memory(&FakeFactory::new(), vec![plan("default", pool)], memory)
}

async fn built(bench: &Bench) -> BuildView {
    let build = bench.cache.rebuild("default").unwrap();
    bench.cache.build_ended(&build.id).await.unwrap()
}

async fn has_rolled(bench: &Bench) {
    bench
        .until("it has rolled", |bench| {
            let pool = bench.pool();
            pool.roll.is_none() && pool.ready as u32 == pool.target && pool.releasing == 0
        })
        .await;
}

fn listed(bench: &Bench) -> Vec<String> {
    let view = bench.cache.template("default").unwrap();
    let mut names: Vec<_> = view.generations.into_iter().map(|g| g.generation).collect();
    names.sort();
    names
}

fn dropped(generation: &str) -> Vec<DroppedGeneration> {
    vec![DroppedGeneration {
        template: "default".to_owned(),
        generation: generation.to_owned(),
    }]
}

/// Generations that were dropped, by the events so far, and what for.
fn told(follower: &mut Follower) -> Vec<(String, String)> {
    let mut told = Vec::new();
    while let Some(Followed::Event(event)) = follower.next().now_or_never() {
        if let Happening::GenerationDropped { generation, reason } = &event.what {
            assert_eq!(event.template, "default");
            told.push((generation.clone(), reason.clone()));
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn a_build_takes_the_place_of_the_oldest_and_says_so() {
    let bench = bench(THREE_FILES_MIB, pool_spec());
    has_rolled(&bench).await;
    let mut generations = bench.factory.on_disk();
    let mut follower = bench.cache.follow(None);
    for rebuild in 0..4 {
        let build = built(&bench).await;
        assert_eq!(build.state, BuildState::Succeeded, "{:?}", build.error);
        has_rolled(&bench).await;
        let expected = if rebuild == 0 {
            Vec::new()
        } else {
            dropped(&generations.remove(0))
        };
        assert_eq!(build.dropped, expected);
        let (names, reasons): (Vec<_>, Vec<_>) = told(&mut follower).into_iter().unzip();
        let expected: Vec<_> = expected.into_iter().map(|one| one.generation).collect();
        assert_eq!(names, expected);
        let reason = format!("build {} of template default needs its memory", build.id);
        assert!(reasons.iter().all(|told| *told == reason), "{reasons:?}");
        generations.push(build.generation.unwrap());
        assert_eq!(bench.factory.on_disk(), generations, "two are kept");
        let mut by_name = generations.clone();
        by_name.sort();
        assert_eq!(listed(&bench), by_name, "and shown at once");
    }
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_roll_would_go_back_to_stays_and_so_does_what_has_clones() {
    let bench = bench(THREE_FILES_MIB, pool_spec());
    has_rolled(&bench).await;
    bench.factory.script().of_generation = Some(Launch::Hangs);
    let second = built(&bench).await;
    assert_eq!(second.state, BuildState::Succeeded);
    assert!(bench.pool().roll.is_some());
    let on_disk = bench.factory.on_disk();
    let third = built(&bench).await;
    assert_eq!(third.state, BuildState::Failed);
    let why = third.error.unwrap();
    assert!(why.contains("2 template files"), "{why}");
    assert!(third.dropped.is_empty());
    assert_eq!(bench.factory.on_disk(), on_disk);
    bench.stops_clean().await;

    let bench = self::bench(THREE_FILES_MIB, pool_spec());
    has_rolled(&bench).await;
    let used = bench.lease().await;
    assert_eq!(built(&bench).await.state, BuildState::Succeeded);
    has_rolled(&bench).await;
    let refused = built(&bench).await;
    assert_eq!(refused.state, BuildState::Failed, "a sandbox needs it");
    assert!(bench.factory.on_disk().contains(&used.generation));
    bench.cache.release(&used.id).await.unwrap();
    let build = built(&bench).await;
    assert_eq!(build.dropped, dropped(&used.generation));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_system_that_is_full_is_made_room_on_too() {
    let bench = Bench::of(&FakeFactory::new(), vec![plan("default", pool_spec())]);
    has_rolled(&bench).await;
    let first = bench.factory.current_on_disk();
    built(&bench).await;
    has_rolled(&bench).await;
    bench.factory.script().builds = [Build::FindsNoRoom, Build::Succeeds].into();
    let build = built(&bench).await;
    assert_eq!(build.state, BuildState::Succeeded, "{:?}", build.error);
    assert_eq!(build.dropped, dropped(&first));
    has_rolled(&bench).await;
    // Where there is nothing left to drop, it is refused.
    bench.factory.script().build = Build::FindsNoRoom;
    let build = built(&bench).await;
    assert_eq!((build.state, build.dropped.len()), (BuildState::Failed, 1));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn clones_that_are_refused_memory_get_that_of_what_is_only_kept() {
    let pool = PoolSpec {
        target: 2,
        ..pool_spec()
    };
    let bench = bench(2 * FILE_MIB + 300, pool);
    has_rolled(&bench).await;
    built(&bench).await;
    has_rolled(&bench).await;
    assert_eq!(bench.factory.on_disk().len(), 2);
    // What gives way is not in the way of a larger pool.
    let change = Resize {
        target: Some(12),
        max: None,
    };
    bench.cache.resize("default", change).await.unwrap();
    has_rolled(&bench).await;
    assert_eq!(bench.pool().degraded, None);
    assert_eq!(bench.factory.on_disk(), [bench.factory.current_on_disk()]);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_larger_clone_gets_it_too() {
    let bench = bench(2 * FILE_MIB + 300, pool_spec());
    has_rolled(&bench).await;
    built(&bench).await;
    has_rolled(&bench).await;
    let larger = vmint_cache::CheckoutRequest {
        memory_mib: Some(256 + 384),
        wait: SECOND,
        ..request()
    };
    let lease = bench.cache.checkout(larger).await.unwrap();
    assert_eq!(lease.view().memory_mib, 640);
    assert_eq!(bench.factory.on_disk().len(), 1);
    drop(lease);
    bench.stops_clean().await;
}
