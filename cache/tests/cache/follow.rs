//! Consoles that are followed.

use std::sync::atomic::Ordering;

use tokio::time::timeout;
use vmint_cache::ConsoleError;

use crate::bench::{Bench, SECOND, pool_spec};

#[tokio::test(start_paused = true)]
async fn followers_of_a_silent_console_do_not_look_at_it() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let mut followers = Vec::new();
    for _ in 0..16 {
        followers.push(bench.cache.follow_console(&id).await.unwrap());
    }
    let one_more = bench.cache.follow_console(&id).await.err();
    assert!(matches!(
        one_more,
        Some(ConsoleError::TooManyFollowers { max: 16, .. })
    ));

    let machine = bench.factory.clone_of(&id);
    let silence = followers
        .iter_mut()
        .map(|it| timeout(60 * SECOND, it.next()));
    let heard = futures::future::join_all(silence).await;
    assert!(heard.iter().all(Result::is_err), "nothing was written");
    let looks = machine.looks.load(Ordering::SeqCst);
    assert_eq!(looks, 16, "each has looked once in a minute");

    machine
        .console
        .send_modify(|written| written.extend(b"hello"));
    let said = followers[0].next().await.unwrap();
    assert_eq!(
        said.as_deref(),
        Some(&b"hello"[..]),
        "a wait may be given up"
    );
    bench.stops_clean().await;
}
