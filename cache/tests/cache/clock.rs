//! A host whose clock is set while clones wait.

use std::sync::atomic::Ordering;

use vmint_cache::RecordState;

use crate::bench::{Bench, pool_spec, request};

#[tokio::test(start_paused = true)]
async fn a_clone_that_waited_while_the_clock_was_set_has_it_set_and_is_not_taken_back() {
    let bench = Bench::filled(pool_spec()).await;
    for clone in bench.factory.alive() {
        clone.clock_is_off.store(true, Ordering::SeqCst);
    }
    let lease = bench.cache.checkout(request()).await.unwrap();
    let clone = bench.factory.clone_of(&lease.view().id);
    assert!(!clone.clock_is_off.load(Ordering::SeqCst));
    let records = clone.records.lock().unwrap().clone();
    assert!(matches!(
        records[..],
        [.., RecordState::Preparing, RecordState::Leased(_)]
    ));
    drop(lease);
    bench.until("it is gone", |_| !clone.is_alive()).await;
    bench.stops_clean().await;
}
