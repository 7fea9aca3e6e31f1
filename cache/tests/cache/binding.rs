//! What is bound to a clone, and whose its sockets are.

use vmint_cache::{BoundFile, CheckoutRequest, RecordState, SocketOwner};

use crate::bench::{Bench, pool_spec, request};
use crate::checkout::named;
use crate::fake::NOBODY;

fn with_file(path: &str) -> CheckoutRequest {
    let mut request = named("job-17");
    request.binding.env = [("TOKEN".to_owned(), "s3cret".to_owned())].into();
    request.binding.files = vec![BoundFile {
        path: path.to_owned(),
        content: b"s3cret".to_vec(),
        mode: Some(0o600),
    }];
    request
}

#[tokio::test(start_paused = true)]
async fn all_that_is_bound_goes_to_the_guest_in_one_call() {
    let bench = Bench::filled(pool_spec()).await;
    let request = with_file("/etc/job");
    let view = bench
        .cache
        .checkout(request.clone())
        .await
        .unwrap()
        .commit();
    let bound = bench
        .factory
        .clone_of(&view.id)
        .bound
        .lock()
        .unwrap()
        .clone();
    assert_eq!(bound, [request.binding]);
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_guest_refuses_is_not_tried_in_another_and_its_clone_is_ended() {
    let bench = Bench::filled(pool_spec()).await;
    let before: Vec<_> = bench.factory.alive();
    let error = bench
        .cache
        .checkout(with_file("/folder"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (
            "not_possible",
            "the guest cannot be bound as asked: /folder: is a directory"
        )
    );
    bench.all_is_back().await;
    let ended = before.iter().filter(|clone| !clone.is_alive()).count();
    assert_eq!(ended, 1, "half bound is bound: only that one is discarded");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn sockets_are_the_callers_before_the_answer_and_such_a_clone_is_nobody_elses() {
    let bench = Bench::filled(pool_spec()).await;
    let owner = |uid| CheckoutRequest {
        owner: Some(SocketOwner { uid, gid: 100 }),
        ..request()
    };
    let lease = bench.cache.checkout(owner(1000)).await.unwrap();
    let clone = bench.factory.clone_of(&lease.view().id);
    assert_eq!(
        *clone.owner.lock().unwrap(),
        Some(SocketOwner {
            uid: 1000,
            gid: 100
        })
    );
    assert!(matches!(clone.recorded(), Some(RecordState::Leased(_))));
    drop(lease);
    bench.until("it is ended", |_| !clone.is_alive()).await;
    let error = bench.cache.checkout(owner(NOBODY)).await.unwrap_err();
    assert_eq!(error.code(), "internal", "no guest has done anything");
    bench.all_is_back().await;
    bench.stops_clean().await;
}
