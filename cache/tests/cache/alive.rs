//! Clones that hang: they are noticed without a checkout, none of them is handed out, and what that costs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use vmint_cache::{Event, Followed, Happening, Leased, PoolSpec, Standby};

use crate::bench::{Bench, SECOND, pool_spec, request};
use crate::fake::Launch;
use crate::time::pass;

const MINUTE: Duration = Duration::from_secs(60);

/// Waits for the next event that is such a one.
async fn event(
    follower: &mut vmint_cache::Follower,
    is_it: impl Fn(&Happening) -> bool,
) -> Arc<Event> {
    let waiting = async {
        loop {
            if let Followed::Event(event) = follower.next().await
                && is_it(&event.what)
            {
                return event;
            }
        }
    };
    timeout(600 * SECOND, waiting).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stopped_hypervisor_is_never_handed_out() {
    for standby in [Standby::Running, Standby::Paused] {
        let bench = Bench::filled(PoolSpec {
            standby,
            ..pool_spec()
        })
        .await;
        let stopped = bench.factory.alive();
        stopped.iter().for_each(|clone| clone.stops());
        let begun = Instant::now();
        let lease = bench.cache.checkout(request()).await.unwrap();
        let id = &lease.view().id;
        assert!(stopped.iter().all(|clone| clone.id.as_str() != id));
        let took = begun.elapsed();
        assert!(took < SECOND, "{took:?} with {standby:?}: nobody is asked");
        lease.commit();
        bench.cache.stop(30 * SECOND, Leased::End).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_hypervisor_is_noticed_without_a_checkout() {
    for standby in [Standby::Running, Standby::Paused] {
        let bench = Bench::filled(PoolSpec {
            standby,
            ..pool_spec()
        })
        .await;
        let stopped = Arc::clone(&bench.factory.alive()[0]);
        stopped.stops();
        let begun = Instant::now();
        bench.until("it was ended", |_| !stopped.is_alive()).await;
        assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
        bench.is_full().await;
        bench.stops_clean().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_guest_is_ended_and_the_next_one_taken() {
    let bench = Bench::filled(pool_spec()).await;
    // Both guests hang at the same time, and neither has been heard from for long enough to be asked.
    let hung = bench.factory.alive();
    hung.iter().for_each(|clone| clone.falls_silent());
    pass(6 * SECOND).await;
    let begun = Instant::now();
    let lease = bench.cache.checkout(request()).await.unwrap();
    let took = begun.elapsed();
    assert!(took <= 3 * SECOND, "{took:?} for two silent guests");
    let id = &lease.view().id;
    assert!(hung.iter().all(|clone| clone.id.as_str() != id));
    bench
        .until("they were ended", |_| {
            hung.iter().all(|clone| !clone.is_alive())
        })
        .await;
    lease.commit();
    bench.cache.stop(30 * SECOND, Leased::End).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_dead_costs_a_checkout_no_more_than_a_hung_guest() {
    let bench = Bench::filled(pool_spec()).await;
    let hung = bench.factory.alive();
    hung.iter().for_each(|clone| clone.loses_its_channel());
    pass(6 * SECOND).await;
    let begun = Instant::now();
    let lease = bench.cache.checkout(request()).await.unwrap();
    let took = begun.elapsed();
    assert!(took <= 3 * SECOND, "{took:?} for two dead channels");
    let id = &lease.view().id;
    assert!(hung.iter().all(|clone| clone.id.as_str() != id));
    lease.commit();
    bench.cache.stop(30 * SECOND, Leased::End).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_guest_that_does_not_come_back_is_ended_and_the_next_one_taken() {
    let bench = Bench::filled(PoolSpec {
        standby: Standby::Paused,
        ..pool_spec()
    })
    .await;
    let hung = bench.factory.alive();
    hung.iter().for_each(|clone| clone.falls_silent());
    let lease = bench.cache.checkout(request()).await.unwrap();
    let id = &lease.view().id;
    assert!(hung.iter().all(|clone| clone.id.as_str() != id));
    lease.commit();
    bench.cache.stop(30 * SECOND, Leased::End).await;
}

#[tokio::test(start_paused = true)]
async fn a_small_pool_hands_out_without_another_word() {
    let bench = Bench::filled(pool_spec()).await;
    pass(MINUTE).await;
    for _ in 0..10 {
        pass(Duration::from_millis(1_700)).await;
        bench.is_full().await;
        let asked: usize = pings(&bench);
        let lease = bench.cache.checkout(request()).await.unwrap();
        assert_eq!(pings(&bench), asked, "it was heard from just now");
        drop(lease);
    }
    bench.stops_clean().await;
}

fn pings(bench: &Bench) -> usize {
    let alive = bench.factory.clones.lock().unwrap();
    let pings = alive
        .values()
        .map(|clone| clone.pings.load(Ordering::SeqCst));
    pings.sum()
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_whose_guest_is_silent_is_shown_told_and_ended() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let mut follower = bench.cache.follow(None);
    let clone = bench.factory.clone_of(&id);
    pass(MINUTE).await;
    let view = bench.cache.sandbox(&id).unwrap();
    assert!(!view.unresponsive && view.last_seen < Some(20 * SECOND));

    clone.falls_silent();
    let begun = Instant::now();
    let told = |what: &Happening| matches!(what, Happening::SandboxUnresponsive { .. });
    let event_told = event(&mut follower, told).await;
    let Happening::SandboxUnresponsive {
        sandbox, ends_in, ..
    } = &event_told.what
    else {
        unreachable!("it was asked for");
    };
    assert_eq!((sandbox, *ends_in), (&id, MINUTE));
    let until_told = begun.elapsed();
    assert!(
        until_told >= MINUTE && until_told <= MINUTE + 20 * SECOND,
        "{until_told:?}"
    );
    let view = bench.cache.sandbox(&id).unwrap();
    assert!(view.unresponsive && view.last_seen >= Some(MINUTE));
    assert_eq!(bench.pool().unresponsive, 1);

    let gone = |what: &Happening| matches!(what, Happening::Release { .. });
    let released = event(&mut follower, gone).await;
    let Happening::Release {
        sandbox, reason, ..
    } = &released.what
    else {
        unreachable!("it was asked for");
    };
    assert!(
        sandbox == &id && reason.starts_with("unresponsive"),
        "{reason}"
    );
    assert!(begun.elapsed() >= 2 * MINUTE);
    bench.until("it was ended", |_| !clone.is_alive()).await;
    assert_eq!(bench.pool().unresponsive, 0);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_whose_guest_comes_back_lives_on() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let clone = bench.factory.clone_of(&id);
    clone.falls_silent();
    bench
        .until("it is unresponsive", |bench| {
            bench.cache.sandbox(&id).unwrap().unresponsive
        })
        .await;
    clone.speaks_again();
    bench
        .until("it answers", |bench| {
            !bench.cache.sandbox(&id).unwrap().unresponsive
        })
        .await;
    pass(2 * MINUTE).await;
    assert!(clone.is_alive());
    assert_eq!(bench.pool().unresponsive, 0);
    bench.cache.stop(30 * SECOND, Leased::End).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_guest_says_by_itself_counts_as_an_answer() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let clone = bench.factory.clone_of(&id);
    clone.falls_silent();
    for _ in 0..60 {
        pass(5 * SECOND).await;
        // A command's output, a file.
        clone.is_heard();
        let view = bench.cache.sandbox(&id).unwrap();
        assert!(!view.unresponsive && clone.is_alive());
    }
    bench.cache.stop(30 * SECOND, Leased::End).await;
}

/// Questions and looks at processes in a minute of a node with so many clones.
async fn work_per_minute(clones: u32) -> (usize, usize) {
    let bench = Bench::start(PoolSpec {
        target: clones,
        max: clones,
        refill: 64,
        ..pool_spec()
    });
    bench.factory.script().launch = Launch::Up;
    bench.is_full().await;
    // What the filling has left behind is over.
    pass(2 * MINUTE).await;
    let looks = || -> usize {
        let all = bench.factory.clones.lock().unwrap();
        all.values()
            .map(|clone| clone.process_looks.load(Ordering::SeqCst))
            .sum()
    };
    let (pings_before, looks_before) = (pings(&bench), looks());
    pass(3 * MINUTE).await;
    let work = (pings(&bench) - pings_before, looks() - looks_before);
    bench.stops_clean().await;
    (work.0 / 3, work.1 / 3)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clones_cost_no_more_than_their_number() {
    let (few_pings, few_looks) = work_per_minute(100).await;
    let (pings, looks) = work_per_minute(1_000).await;
    // 1 % of a core, at 1.5 ms a question.
    assert!((333..=401).contains(&few_pings), "{few_pings} a minute");
    assert!((333..=401).contains(&pings), "{pings} a minute");
    assert!(looks <= 10 * few_looks + 1_000, "{looks} and {few_looks}");
    assert!(looks <= 31 * 1_000, "{looks} looks a minute");
}
