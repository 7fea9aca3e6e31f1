//! A host with little memory: what does not fit waits or is refused, with the sum.

use tokio::time::timeout;
use vmint_cache::{
    BuildState, CheckoutError, CheckoutRequest, MemoryBudget, OnEmpty, PoolSpec, Resize,
    ResizeError,
};

use crate::bench::{Bench, SECOND, plan, pool_spec, request, request_with};
use crate::fake::{FakeFactory, Launch, OnDisk};
use crate::time::pass;

const MIB: u64 = 1024 * 1024;
/// What a generation of the fake factory counts for, with what is beside its memory.
const FILE_MIB: u64 = 257;
/// What a clone counts for until it is measured; the fake's clones have 32 MiB as well.
const CLONE_MIB: u64 = 32;

fn budget(mib: u64) -> Option<MemoryBudget> {
    Some(MemoryBudget::of(mib * MIB, 1.0))
}

/// One template, with memory for so many clones.
fn with_room_for(clones: u64, pool: PoolSpec) -> Bench {
    let factory = FakeFactory::new();
    let memory = budget(FILE_MIB + clones * CLONE_MIB);
    Bench::with_memory(&factory, vec![plan("default", pool)], memory)
}

fn five() -> PoolSpec {
    PoolSpec {
        target: 5,
        ..pool_spec()
    }
}

async fn is_short(bench: &Bench, ready: usize) {
    bench
        .until("the pool is as full as it can be", |bench| {
            let pool = bench.pool();
            pool.ready == ready && pool.degraded.is_some() && pool.launching == 0
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn as_many_are_kept_as_fit_and_the_rest_waits() {
    let bench = with_room_for(3, five());
    is_short(&bench, 3).await;
    assert_eq!(
        bench.pool().degraded.as_deref(),
        Some(
            "memory: 1 template file 257 MiB + 3 clones 96 MiB + this clone 32 MiB > 353 MiB, \
             100 % of the host's 353 MiB"
        )
    );
    assert!(bench.cache.readiness().ready, "it has some");
    let level = bench.cache.memory_level();
    assert_eq!(level.budget_bytes, Some(level.admitted_bytes));

    // Everybody who fits is served, and the next one waits for memory.
    let mut leased = Vec::new();
    for _ in 0..3 {
        leased.push(bench.lease().await.id);
    }
    let readiness = bench.cache.readiness();
    assert!(!readiness.ready && readiness.reasons[0].starts_with("pool default: memory: 1 "));
    let waited = bench.cache.checkout(request()).await.unwrap_err();
    let CheckoutError::PoolEmpty { waited, reason, .. } = &waited else {
        panic!("{waited}");
    };
    assert!(
        *waited >= 5 * SECOND && reason.contains("+ this clone 32 MiB > 353 MiB"),
        "{reason}"
    );
    let at_once = bench.cache.checkout(request_with(OnEmpty::Fail)).await;
    assert_eq!(at_once.unwrap_err().code(), "pool_empty");

    // A release makes room for the next.
    let waiting = tokio::spawn({
        let cache = bench.cache.clone();
        async move { cache.checkout(request()).await.map(|lease| lease.commit()) }
    });
    bench
        .until("it waits", |bench| bench.pool().waiters == 1)
        .await;
    bench.cache.release(&leased.pop().unwrap()).await.unwrap();
    leased.push(waiting.await.unwrap().unwrap().id);
    for id in &leased {
        bench.cache.release(id).await.unwrap();
    }
    is_short(&bench, 3).await;
    assert_eq!(bench.heard.count("clone_failed default load"), 0);
    bench.stops_clean().await;
    assert_eq!(bench.cache.memory_level().admitted_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_fills_its_memory_keeps_new_ones_out_until_it_ends() {
    let bench = with_room_for(4, pool_spec());
    bench.is_full().await;
    let id = bench.lease().await.id;
    bench.is_full().await;
    bench.factory.clone_of(&id).uses(4 * CLONE_MIB * MIB);
    bench
        .until("it is measured", |bench| {
            let level = bench.cache.memory_level();
            level.admitted_bytes > level.budget_bytes.unwrap()
        })
        .await;
    // Whoever comes is served from what there is; nothing new is made.
    let other = bench.lease().await.id;
    is_short(&bench, 1).await;
    bench.cache.release(&id).await.unwrap();
    bench.is_full().await;
    bench.cache.release(&other).await.unwrap();
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_gives_memory_back_lets_the_next_be_made() {
    let bench = with_room_for(3, pool_spec());
    bench.is_full().await;
    let id = bench.lease().await.id;
    bench.is_full().await;
    bench.factory.clone_of(&id).uses(2 * CLONE_MIB * MIB);
    bench
        .until("it is measured", |bench| {
            let level = bench.cache.memory_level();
            level.admitted_bytes > level.budget_bytes.unwrap()
        })
        .await;
    let other = bench.lease().await.id;
    is_short(&bench, 1).await;
    bench.factory.clone_of(&id).uses(CLONE_MIB * MIB / 2);
    bench.factory.clone_of(&other).uses(CLONE_MIB * MIB / 2);
    bench.is_full().await;
    assert_eq!(bench.pool().degraded, None);
    bench.stops_clean().await;
}

fn larger(memory_mib: u64) -> CheckoutRequest {
    CheckoutRequest {
        memory_mib: Some(memory_mib),
        ..request()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_plugged_in_must_fit_and_a_clone_that_gets_nothing_goes_back() {
    let bench = with_room_for(8, pool_spec());
    bench.is_full().await;
    let first = bench.cache.checkout(larger(384)).await.unwrap().commit();
    bench.is_full().await;
    // 128 MiB are plugged into the first; nothing is left beside three clones and the one that is being made.
    let refused = bench.cache.checkout(larger(384)).await.unwrap_err();
    assert_eq!(refused.code(), "pool_empty");
    assert_eq!(
        refused.to_string(),
        "no room for a sandbox of this size at present: memory: 1 template file 257 MiB + 4 clones 256 MiB \
         + what is plugged into it 128 MiB > 513 MiB, 100 % of the host's 513 MiB"
    );
    bench.all_but(1).await;
    let all: Vec<_> = bench
        .factory
        .clones
        .lock()
        .unwrap()
        .values()
        .cloned()
        .collect();
    let grown = all
        .iter()
        .filter(|clone| clone.grown.lock().unwrap().is_some());
    assert_eq!(grown.count(), 1, "nothing was plugged into the other");

    let never = bench.cache.checkout(larger(512)).await.unwrap_err();
    assert_eq!(never.code(), "not_possible");
    assert!(matches!(never, CheckoutError::NeverRoom(_)), "{never}");

    bench.cache.release(&first.id).await.unwrap();
    let again = bench.cache.checkout(larger(384)).await.unwrap().commit();
    assert_eq!(again.memory_mib, 384);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_admitted_for_a_client_that_hangs_up_is_free_again() {
    let bench = with_room_for(8, pool_spec());
    bench.is_full().await;
    let admitted = |bench: &Bench| bench.cache.memory_level().admitted_bytes;
    let before = admitted(&bench);
    // What takes its place comes later: nothing is surplus meanwhile.
    bench.factory.script().launch = Launch::UpAfter(5 * SECOND);
    // Its guest was not heard from: it is asked before it is handed over, and the client does not wait for the answer.
    for clone in bench.factory.alive() {
        *clone.heard.lock().unwrap() = None;
        clone.falls_silent();
    }
    let impatient = timeout(SECOND / 2, bench.cache.checkout(larger(384))).await;
    assert!(impatient.is_err(), "it was not asked");
    for clone in bench.factory.alive() {
        clone.speaks_again();
        clone.is_heard();
    }
    pass(SECOND).await;
    assert_eq!(bench.pool().leased, 0);
    let more = admitted(&bench).saturating_sub(before);
    assert!(more <= CLONE_MIB * MIB, "{more} bytes for one that is made");
    bench.is_full().await;
    assert_eq!(admitted(&bench), before);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_fit_is_refused_and_a_smaller_one_is_not() {
    let bench = with_room_for(4, pool_spec());
    bench.is_full().await;
    let resize = |target| {
        let change = Resize {
            target: Some(target),
            max: None,
        };
        bench.cache.resize("default", change)
    };
    let refused = resize(5).await.unwrap_err();
    assert!(matches!(refused, ResizeError::NoRoom(_)), "{refused}");
    assert_eq!(
        refused.to_string(),
        "memory: 1 template file 257 MiB + 5 clones to keep 160 MiB > 385 MiB, 100 % of the host's 385 MiB"
    );
    assert_eq!(resize(4).await.unwrap().target, 4);
    bench.is_full().await;
    bench.stops_clean().await;

    let bench = with_room_for(3, five());
    is_short(&bench, 3).await;
    let change = Resize {
        target: Some(4),
        max: None,
    };
    let smaller = bench.cache.resize("default", change).await;
    assert_eq!(
        smaller.unwrap().target,
        4,
        "less than before is always possible"
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_build_reserves_its_file_and_one_that_does_not_fit_fails_with_the_sum() {
    let factory = FakeFactory::new();
    factory.script().on_disk = OnDisk::Nothing;
    let plans = || vec![plan("default", pool_spec())];
    let bench = Bench::with_memory(&factory, plans(), budget(FILE_MIB + 191));
    bench
        .until("the build has failed", |bench| {
            bench
                .cache
                .template("default")
                .unwrap()
                .last_error
                .is_some()
        })
        .await;
    let build = bench.cache.builds().pop().unwrap();
    assert_eq!(build.state, BuildState::Failed);
    assert_eq!(
        build.error.as_deref(),
        Some("memory: this build 449 MiB > 448 MiB, 100 % of the host's 448 MiB")
    );
    let unavailable = bench.cache.checkout(request()).await.unwrap_err();
    assert!(
        unavailable.to_string().contains("this build 449 MiB"),
        "{unavailable}"
    );
    bench.stops_clean().await;

    let bench = Bench::with_memory(&factory, plans(), budget(FILE_MIB + 192));
    factory.build_gate.send_replace(false);
    bench
        .until("it is building", |bench| {
            bench.cache.memory_level().admitted_bytes == (FILE_MIB + 192) * MIB
        })
        .await;
    factory.build_gate.send_replace(true);
    bench.is_full().await;
    let held = bench.cache.memory_level().admitted_bytes;
    assert_eq!(held, (FILE_MIB + 2 * CLONE_MIB) * MIB, "the rest is free");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_generation_counts_as_long_as_it_is_on_disk_or_in_use() {
    let factory = FakeFactory::new();
    let plans = vec![plan("default", pool_spec())];
    let bench = Bench::with_memory(&factory, plans, budget(4 * FILE_MIB));
    bench.is_full().await;
    let old = bench.lease().await.id;
    let build = bench.cache.rebuild("default").unwrap();
    bench.cache.build_ended(&build.id).await.unwrap();
    let files = |bench: &Bench| {
        let template = bench.cache.template("default").unwrap();
        (
            template.generations.len() as u64,
            bench.cache.memory_level().admitted_bytes,
        )
    };
    bench.is_full().await;
    bench
        .until("the old ones are replaced", |bench| {
            let pool = bench.pool();
            let is_old = |at: usize| pool.clones[at].generation == pool.clones[0].generation;
            pool.clones.len() == 3 && !is_old(1) && !is_old(2)
        })
        .await;
    let clones = 3 * CLONE_MIB * MIB;
    assert_eq!(files(&bench), (2, 2 * FILE_MIB * MIB + clones));
    bench.cache.release(&old).await.unwrap();
    let clones = 2 * CLONE_MIB * MIB;
    assert_eq!(
        files(&bench),
        (2, 2 * FILE_MIB * MIB + clones),
        "it is kept"
    );
    bench.factory.removes_earlier();
    bench
        .until("it is noticed", |bench| {
            files(bench) == (1, FILE_MIB * MIB + clones)
        })
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_pool_frees_another_that_waits_gets() {
    let factory = FakeFactory::new();
    let one = |name| {
        let pool = PoolSpec {
            target: 1,
            ..pool_spec()
        };
        plan(name, pool)
    };
    let memory = budget(2 * FILE_MIB + CLONE_MIB);
    let bench = Bench::with_memory(&factory, vec![one("default"), one("other")], memory);
    let made = |bench: &Bench, name: &str| bench.cache.pool(name).unwrap().ready == 1;
    bench
        .until("one of them has it", |bench| {
            made(bench, "default") != made(bench, "other")
        })
        .await;
    let (has, waits) = if made(&bench, "default") {
        ("default", "other")
    } else {
        ("other", "default")
    };
    let nothing = Resize {
        target: Some(0),
        max: None,
    };
    bench.cache.resize(has, nothing).await.unwrap();
    bench
        .until("the other has it", |bench| made(bench, waits))
        .await;
    bench.stops_clean().await;
}
