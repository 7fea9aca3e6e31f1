//! Clients that hang up, at every moment: no clone is lost, and none is given to two.

use std::collections::BTreeSet;
use std::pin::Pin;

use futures::future::poll_immediate;
use tokio::task::yield_now;
use vmint_cache::{Binding, CheckoutError, CheckoutRequest, Lease, OnEmpty};

use crate::bench::{Bench, pool_spec, request};
use crate::fake::Launch;

/// How many turns each of three clients waits before it hangs up: 0 to 9, and so a thousand combinations.
const TURNS: usize = 10;

type Checkout<'a> = Pin<Box<dyn Future<Output = Result<Lease, CheckoutError>> + 'a>>;

/// Lets the three go on together, and each hang up in its turn. What they got by then is theirs.
async fn hang_up(mut checkouts: Vec<(usize, Checkout<'_>)>) -> Vec<Lease> {
    let mut leases = Vec::new();
    for turn in 0..=TURNS {
        let mut waiting = Vec::new();
        for (turns, mut checkout) in checkouts {
            match poll_immediate(&mut checkout).await {
                Some(result) => leases.extend(result.ok()),
                None if turn < turns => waiting.push((turns, checkout)),
                None => drop(checkout),
            }
        }
        checkouts = waiting;
        yield_now().await;
    }
    leases
}

async fn a_thousand_combinations(target: u32) {
    let bench = Bench::start(vmint_cache::PoolSpec {
        target,
        max: 3,
        ..pool_spec()
    });
    bench.factory.script().launch = Launch::UpAfterTurns(3);
    bench.is_full().await;
    for combination in 0..TURNS * TURNS * TURNS {
        let turns = [
            combination % TURNS,
            combination / TURNS % TURNS,
            combination / TURNS / TURNS,
        ];
        let ask = |nth: usize| CheckoutRequest {
            on_empty: if nth == 0 {
                OnEmpty::Clone
            } else {
                OnEmpty::Wait
            },
            binding: Binding {
                hostname: (nth == 1 && combination % 2 == 0).then(|| "job".to_owned()),
                ..Binding::default()
            },
            ..request()
        };
        let checkouts = (0..3).map(|nth| {
            (
                turns[nth],
                Box::pin(bench.cache.checkout(ask(nth))) as Checkout<'_>,
            )
        });
        let leases = hang_up(checkouts.collect()).await;
        let ids: BTreeSet<&str> = leases
            .iter()
            .map(|lease| lease.view().id.as_str())
            .collect();
        assert_eq!(
            ids.len(),
            leases.len(),
            "{turns:?}: one clone was given to two"
        );
        assert!(
            ids.iter().all(|id| bench.factory.clone_of(id).is_alive()),
            "{turns:?}"
        );
        drop(leases);
        bench.all_is_back().await;
        assert_eq!(
            bench.factory.alive().len(),
            target as usize,
            "{turns:?}: a clone was lost"
        );
    }
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_whenever_three_clients_hang_up_on_a_filled_pool() {
    a_thousand_combinations(2).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_whenever_three_clients_hang_up_on_an_empty_pool() {
    a_thousand_combinations(0).await;
}
