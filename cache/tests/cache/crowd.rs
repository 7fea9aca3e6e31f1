//! A crowd of clients on several threads: some hang up, some release, some die, some let their lease be dropped.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::timeout;
use vmint_cache::{Binding, Cache, CheckoutRequest, OnEmpty, PoolSpec};

use crate::bench::{Bench, pool_spec, request};
use crate::fake::{FakeFactory, Launch};

const CLIENTS: u64 = 50;
const CHECKOUTS: usize = 40;

/// The sandboxes that somebody has: nobody else may get one of them.
type Held = Arc<Mutex<BTreeSet<String>>>;

async fn one_client(seed: u64, cache: Cache, factory: Arc<FakeFactory>, held: Held) {
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..CHECKOUTS {
        let on_empty = [OnEmpty::Wait, OnEmpty::Clone, OnEmpty::Fail][rng.random_range(0..3)];
        let hostname = rng.random_bool(0.3).then(|| "job".to_owned());
        let patience = Duration::from_micros(rng.random_range(0..3_000));
        let ask = CheckoutRequest {
            on_empty,
            binding: Binding {
                hostname,
                ..Binding::default()
            },
            ..request()
        };
        let Ok(Ok(lease)) = timeout(patience, cache.checkout(ask)).await else {
            continue;
        };
        let id = lease.view().id.clone();
        assert!(
            held.lock().unwrap().insert(id.clone()),
            "{id} was given to two"
        );
        let end = rng.random_range(0..3);
        // Before it goes back somebody else may already get it.
        held.lock().unwrap().remove(&id);
        match end {
            0 => drop(lease),
            1 => cache.release(&lease.commit().id).await.unwrap(),
            _ => {
                let id = lease.commit().id;
                factory.clone_of(&id).dies("killed");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_in_a_crowd() {
    let bench = Bench::start(PoolSpec {
        target: 3,
        max: 8,
        ..pool_spec()
    });
    bench.factory.script().launch = Launch::UpAfterTurns(5);
    let held = Held::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            tokio::spawn(one_client(
                seed,
                bench.cache.clone(),
                Arc::clone(&bench.factory),
                Arc::clone(&held),
            ))
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    bench.all_is_back().await;
    assert_eq!(bench.factory.alive().len(), 3);
    bench.stops_clean().await;
}
