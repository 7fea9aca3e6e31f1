//! What ordinary requests cost, counted at the machines: none of it grows with what it is not about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::poll_immediate;
use tokio::time::{Duration, timeout};
use vmint_cache::{
    Caller, CheckoutRequest, DeviceOrder, DeviceSpecs, ExecRequest, PoolSpec, RecordState,
};
use vmint_factory::NicSpec;

use crate::bench::{Bench, SECOND, pool_spec, request};
use crate::fake::Clone;
use crate::time::pass;

fn total(clones: &[Arc<Clone>], counted: impl Fn(&Clone) -> &AtomicUsize) -> usize {
    let counts = clones
        .iter()
        .map(|clone| counted(clone).load(Ordering::SeqCst));
    counts.sum()
}

#[tokio::test(start_paused = true)]
async fn a_scrape_shows_the_memory_that_was_measured_last_and_measures_nothing() {
    let bench = Bench::filled(pool_spec()).await;
    let clones = bench.factory.alive();
    let measured = || total(&clones, |clone| &clone.measured);
    bench.until("they were measured", |_| measured() >= 2).await;
    // In the middle of the pause between two rounds.
    pass(SECOND).await;
    let before = measured();
    for clone in &clones {
        clone.uses(1 << 40);
    }
    let mut shown = 0;
    for _ in 0..10 {
        let cache = &bench.cache;
        // All that a scrape asks for, and what load balancers ask.
        let memory = cache.memory();
        drop((cache.pool_levels(), cache.templates(), cache.memory_level()));
        assert!(cache.readiness().ready);
        shown = memory.iter().map(|one| one.clone_private_bytes).sum();
    }
    assert_eq!(measured(), before);
    assert!((1..1 << 40).contains(&shown), "{shown}");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_costs_no_look_at_sandboxes_that_are_not_in_its_way() {
    const HOLDERS: usize = 12;
    let bench = Bench::filled(pool_spec()).await;
    let specs = DeviceSpecs {
        nics: vec![NicSpec::User],
        disks: Vec::new(),
    };
    let with_nic = || CheckoutRequest {
        devices: Some(DeviceOrder {
            specs: specs.clone(),
            caller: Caller::this_process().unwrap(),
        }),
        ..request()
    };
    let mut holders = Vec::new();
    for _ in 0..HOLDERS {
        let leased = bench.cache.checkout(with_nic()).await.unwrap().commit();
        holders.push(bench.factory.clone_of(&leased.id));
    }
    let looks = || total(&holders, |clone| &clone.process_looks);
    let before = looks();
    // A claim, its end, and a checkout that is dropped.
    let one = bench.cache.checkout(with_nic()).await.unwrap().commit();
    bench.cache.release(&one.id).await.unwrap();
    drop(bench.cache.checkout(with_nic()).await.unwrap());
    bench.all_but(HOLDERS).await;
    assert_eq!(looks(), before);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn the_facts_of_a_clone_are_put_together_for_its_view_alone() {
    let bench = Bench::filled(pool_spec()).await;
    let clones = bench.factory.alive();
    let asked = || total(&clones, |clone| &clone.facts_asked);
    let before = asked();
    let id = bench.lease().await.id;
    assert_eq!(asked() - before, 1, "the view of the sandbox");
    let argv = vec!["true".to_owned()];
    let run = bench.cache.exec(&id, ExecRequest::new(argv, SECOND)).await;
    assert_eq!(run.unwrap().exit_code, Some(0));
    bench.cache.renew(&id, Some(60 * SECOND)).await.unwrap();
    assert!(bench.cache.sandbox(&id).is_ok() && bench.cache.sandboxes(None).len() == 1);
    assert!(!bench.pool().clones.is_empty());
    // Questions to the guest, and looks at its hypervisor.
    pass(61 * SECOND).await;
    bench.cache.renew(&id, Some(60 * SECOND)).await.unwrap_err();
    assert_eq!(asked() - before, 1);
    bench.stops_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_renewal_that_is_being_written_holds_nobody_up_and_the_newest_is_written_last() {
    let bench = Bench::filled(pool_spec()).await;
    let before = bench.lease().await;
    let clone = bench.factory.clone_of(&before.id);
    let renew = |ttl| {
        let (cache, id) = (bench.cache.clone(), before.id.clone());
        tokio::spawn(async move { cache.renew(&id, Some(ttl)).await })
    };
    clone.disk.hangs();
    let first = renew(400 * SECOND);
    bench
        .until("it is being written", |_| clone.disk.waiting() == 1)
        .await;
    let held = bench.cache.sandbox(&before.id).unwrap().expires_at;
    let second = renew(500 * SECOND);
    bench
        .until("the second one holds", |bench| {
            bench.cache.sandbox(&before.id).unwrap().expires_at > held
        })
        .await;
    let another = timeout(10 * SECOND, bench.cache.checkout(request())).await;
    let another = another.expect("the pool waits for a file");
    drop(another.unwrap().commit());
    assert_eq!(clone.disk.waiting(), 1, "one is written at a time");
    clone.disk.works();
    let (first, second) = (
        first.await.unwrap().unwrap(),
        second.await.unwrap().unwrap(),
    );
    assert!(before.expires_at < first.expires_at && first.expires_at < second.expires_at);
    let Some(RecordState::Leased(lease)) = clone.recorded() else {
        panic!("{:?}", clone.recorded());
    };
    assert_eq!(lease.expires_at, second.expires_at);
    bench.stops_clean().await;
}

/// Keeps every worker of the runtime from its tasks until the last sender is dropped.
async fn workers_are_busy(workers: usize) -> std::sync::mpsc::SyncSender<()> {
    let (busy, until) = std::sync::mpsc::sync_channel::<()>(0);
    let until = Arc::new(std::sync::Mutex::new(until));
    let held = Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..workers {
        let (until, held) = (Arc::clone(&until), Arc::clone(&held));
        tokio::spawn(async move {
            held.add_permits(1);
            // It fails when the sender is gone.
            drop(until.lock().map(|until| until.recv()));
        });
    }
    let all = held.acquire_many(u32::try_from(workers).unwrap());
    let all = timeout(60 * SECOND, all).await;
    drop(all.expect("a worker each").unwrap());
    busy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_renewal_whose_caller_has_gone_is_written_and_holds_nobody_up() {
    let bench = Bench::filled(pool_spec()).await;
    let before = bench.lease().await;
    let clone = bench.factory.clone_of(&before.id);
    clone.disk.hangs();
    // The pool hears of it when nobody waits for the answer any more.
    let busy = workers_are_busy(4).await;
    let renewing = bench.cache.renew(&before.id, Some(400 * SECOND));
    assert!(poll_immediate(Box::pin(renewing)).await.is_none());
    drop(busy);
    bench
        .until("it is being written", |_| clone.disk.waiting() == 1)
        .await;
    let another = timeout(10 * SECOND, bench.cache.checkout(request())).await;
    let another = another.expect("the pool waits for a file");
    drop(another.unwrap().commit());
    assert_eq!(clone.disk.waiting(), 1);
    clone.disk.works();
    let renewed = |bench: &Bench| bench.cache.sandbox(&before.id).unwrap().expires_at;
    assert!(before.expires_at < renewed(&bench));
    bench
        .until("it is written", |bench| {
            let recorded = clone.recorded();
            matches!(recorded, Some(RecordState::Leased(lease)) if lease.expires_at == renewed(bench))
        })
        .await;
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_longer_than_any_clock_can_say_has_no_end() {
    let bench = Bench::filled(PoolSpec {
        target: 1,
        max: 1,
        ..pool_spec()
    })
    .await;
    let leased = bench.lease().await;
    let patient = CheckoutRequest {
        wait: Duration::MAX,
        ..request()
    };
    let mut waiting = Box::pin(bench.cache.checkout(patient));
    assert!(poll_immediate(&mut waiting).await.is_none());
    bench
        .until("it waits", |bench| bench.pool().waiters == 1)
        .await;
    bench.cache.release(&leased.id).await.unwrap();
    let served = timeout(60 * SECOND, waiting).await.unwrap().unwrap();
    assert_ne!(served.view().id, leased.id);
    drop(served);
    bench.stops_clean().await;
}
