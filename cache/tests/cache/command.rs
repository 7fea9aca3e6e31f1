//! Commands in sandboxes.

use vmint_cache::{CheckoutRequest, ExecRequest, SandboxExecError};

use crate::bench::{Bench, SECOND, pool_spec, request};

fn command(name: &str) -> ExecRequest {
    ExecRequest::new(vec![name.to_owned()], 60 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn a_command_runs_and_the_first_one_is_measured_apart() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    for _ in 0..2 {
        assert_eq!(
            bench
                .cache
                .exec(&id, command("hello"))
                .await
                .unwrap()
                .stdout,
            b"hello"
        );
    }
    assert_eq!(bench.heard.count("exec default ok"), 2);
    assert_eq!(bench.heard.count("first_exec default clone"), 1);
    assert_eq!(bench.cache.console(&id).unwrap(), b"console");
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_cannot_be_run_is_told_apart_from_a_sandbox_that_is_not_there() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let missing = bench.cache.exec(&id, command("missing")).await;
    assert!(matches!(missing, Err(SandboxExecError::Failed(_))));
    assert_eq!(bench.heard.count("exec default exec_failed"), 1);
    assert_eq!(bench.heard.count("first_exec default clone"), 0);
    let nowhere = bench.cache.exec("nowhere", command("hello")).await;
    assert!(matches!(
        nowhere,
        Err(SandboxExecError::UnknownSandbox { .. })
    ));
    assert!(bench.cache.console("nowhere").is_err());
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_under_which_the_sandbox_ends_says_why() {
    let bench = Bench::filled(pool_spec()).await;
    let short = CheckoutRequest {
        ttl: Some(Some(60 * SECOND)),
        ..request()
    };
    let id = bench.cache.checkout(short).await.unwrap().commit().id;
    let expired = bench.cache.exec(&id, command("sleep")).await.unwrap_err();
    assert_eq!(
        expired.to_string(),
        "the sandbox ended meanwhile: its lease ran out"
    );
    let id = bench.lease().await.id;
    let crashed = bench.cache.exec(&id, command("crash")).await.unwrap_err();
    assert_eq!(
        crashed.to_string(),
        "the sandbox ended meanwhile: its process died"
    );
    assert_eq!(bench.heard.count("exec default guest_error"), 2);
    bench.stops_clean().await;
}
