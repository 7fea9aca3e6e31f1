//! Processes of sandboxes.

use vmint_cache::{
    CommandOutput, ExecError, ProcessOrder, SandboxProcessError, StreamEnd, StreamRequest,
};

use crate::bench::{Bench, pool_spec};

fn order(name: &str) -> ProcessOrder {
    ProcessOrder {
        command: StreamRequest {
            argv: vec![name.to_owned()],
            ..StreamRequest::default()
        },
        keep_output: true,
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_is_started_looked_at_signalled_and_ended() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let cache = &bench.cache;
    let started = cache.start_process(&id, order("server")).await.unwrap();
    let p = started.id.as_str();
    assert_eq!(
        cache.processes(&id).await.unwrap(),
        std::slice::from_ref(&started)
    );
    assert_eq!(cache.process(&id, p).await.unwrap(), started);
    let kept = cache.kept_output(&id, p).await.unwrap();
    assert_eq!(kept.stdout, b"server");
    cache.signal_process(&id, p, 15).await.unwrap();
    cache.end_process(&id, p).await.unwrap();
    let ended = cache.signal_process(&id, p, 15).await.unwrap_err();
    assert_eq!(ended.to_string(), "the process \"p1\" has ended");
    assert!(matches!(ended, SandboxProcessError::HasEnded { .. }));
    cache.end_process(&id, p).await.unwrap();
    let gone = cache.process(&id, p).await.unwrap_err();
    assert_eq!(
        gone.to_string(),
        format!("there is no process \"p1\" in sandbox {id:?}")
    );
    assert_eq!(
        bench.heard.count("exec default ok"),
        0,
        "how long a process runs says nothing about the service"
    );
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn an_attached_stream_says_what_was_kept_and_how_the_process_ended() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let p = bench.cache.start_process(&id, order("server")).await;
    let p = p.unwrap().id;
    let attach = |replay| bench.cache.attach_process(&id, &p, replay);
    let mut stream = attach(true).await.unwrap();
    let CommandOutput::Stdout(kept) = stream.next().await else {
        panic!("what was kept comes first");
    };
    assert_eq!(kept, "server");
    let mut stream = attach(false).await.unwrap();
    let CommandOutput::Ended(Ok(end)) = stream.next().await else {
        panic!("it has ended");
    };
    let killed = StreamEnd {
        exit_code: None,
        signal: Some(9),
    };
    assert_eq!(end, killed);
    assert_eq!(bench.heard.count("exec default ok"), 0);
    let nothing = bench.cache.attach_process(&id, "p7", false).await;
    assert!(matches!(
        nothing.err(),
        Some(SandboxProcessError::NoProcess { .. })
    ));
    bench.stops_clean().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_started_is_told_apart() {
    let bench = Bench::filled(pool_spec()).await;
    let id = bench.lease().await.id;
    let start = |id: &str, name| {
        let (id, cache) = (id.to_owned(), bench.cache.clone());
        async move { cache.start_process(&id, order(name)).await.unwrap_err() }
    };
    assert!(matches!(
        start(&id, "one too many").await,
        SandboxProcessError::Exec(ExecError::TooMany { limit: 0 })
    ));
    assert!(matches!(
        start(&id, "missing").await,
        SandboxProcessError::Exec(ExecError::Spawn { .. })
    ));
    assert!(matches!(
        start("nowhere", "server").await,
        SandboxProcessError::UnknownSandbox { .. }
    ));
    bench.stops_clean().await;
}
