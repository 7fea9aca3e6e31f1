//! Processes: started, looked at, attached to, signalled, ended.

use std::sync::atomic::Ordering;

use futures::SinkExt as _;
use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::listeners::Listening;
use crate::support::waiting::seen;
use crate::support::websocket::{Client, PROTOCOL};
use crate::support::{Harness, Reply, SOON};

async fn start(harness: &Harness, id: &str, body: Value) -> Reply {
    harness
        .post(&format!("/v1/sandboxes/{id}/processes"), body)
        .await
}

/// A process that runs, by its id.
async fn started(harness: &Harness, id: &str, body: Value) -> String {
    let process = start(harness, id, body).await.ok(201);
    assert_eq!(process["state"], "running");
    process["id"].as_str().unwrap().to_owned()
}

async fn show(harness: &Harness, id: &str, process: &str) -> Value {
    let path = format!("/v1/sandboxes/{id}/processes/{process}");
    harness.get(&path).await.ok(200)
}

async fn signal(harness: &Harness, id: &str, process: &str, signal: Value) -> Reply {
    let path = format!("/v1/sandboxes/{id}/processes/{process}/signal");
    harness.post(&path, json!({"signal": signal})).await
}

async fn until_ended(harness: &Harness, id: &str, process: &str) -> Value {
    until(harness, id, process, |shown| shown["state"] == "exited").await
}

async fn until(
    harness: &Harness,
    id: &str,
    process: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    let look = async || Some(show(harness, id, process).await).filter(&is_so);
    seen("the process is so", look).await
}

async fn attach(service: &Listening, id: &str, process: &str, query: &str) -> Client {
    let path = format!("/v1/sandboxes/{id}/processes/{process}/attach?{query}");
    Client::open_at(service, &path, Some(PROTOCOL))
        .await
        .expect("an upgrade")
}

#[tokio::test]
async fn a_process_is_started_and_found_again() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let body = json!({"argv": ["live", "a b"], "user": "nobody", "tty": true, "rows": 7, "columns": 9,
        "env": {"K": "v"}, "cwd": "/tmp", "stdin": true, "timeout_ms": 5000});
    let reply = start(&harness, &id, body).await;
    let process = reply.ok(201);
    assert_eq!(
        reply.header("location"),
        format!("/v1/sandboxes/{id}/processes/p1")
    );
    assert_eq!(
        process,
        json!({"id": "p1", "argv": ["live", "a b"], "state": "running", "pid": 101, "user": "nobody", "tty": true,
            "started_at": "2023-11-14T22:13:20.001Z", "ended_at": null, "exit_code": null, "signal": null, "ended_by": null,
            "attached": 0})
    );
    let second = started(
        &harness,
        &id,
        json!({"argv": ["hang"], "env": null, "cwd": null, "user": null, "tty": null,
        "rows": null, "columns": null, "stdin": null, "keep_output": null, "timeout_ms": null}),
    )
    .await;
    let path = format!("/v1/sandboxes/{id}/processes");
    let list = harness.get(&path).await.ok(200);
    let ids: Vec<_> = list["processes"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], &process, "a list has no output");
    assert_eq!(
        (&ids[1]["id"], &ids[1]["user"]),
        (&json!(second), &json!("root"))
    );
    let shown = until(&harness, &id, "p1", |shown| shown["stdout"] != "").await;
    let hello = shown["stdout"].as_str().unwrap();
    let expected = r#"["a b"] {"K": "v"} Some("/tmp") Some("nobody") Some((7, 9)) Some(5000)"#;
    assert!(hello.starts_with(expected), "{hello}");
    assert_eq!(
        (&shown["stderr"], &shown["truncated"]),
        (&json!(""), &json!(false))
    );
}

#[tokio::test]
async fn a_process_shows_how_it_ended_and_what_it_wrote() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let echo = started(&harness, &id, json!({"argv": ["echo", "hi"]})).await;
    let ended = until_ended(&harness, &id, &echo).await;
    assert_eq!(
        ended,
        json!({"id": "p1", "argv": ["echo", "hi"], "state": "exited", "pid": null, "user": "root", "tty": false,
            "started_at": "2023-11-14T22:13:20.001Z", "ended_at": "2023-11-14T22:13:21.001Z", "exit_code": 0, "signal": null,
            "ended_by": "exit", "attached": 0, "stdout": "hi\n", "stderr": "err\n", "truncated": false})
    );
    let binary = started(&harness, &id, json!({"argv": ["binary"]})).await;
    let ended = until_ended(&harness, &id, &binary).await;
    assert_eq!(ended["stdout_b64"], "/wA=");
    assert!(ended.get("stdout").is_none());
    // One that keeps nothing shows nothing, and neither does one whose output is not asked for.
    let quiet = json!({"argv": ["echo", "hi"], "keep_output": false});
    let quiet = started(&harness, &id, quiet).await;
    let ended = until_ended(&harness, &id, &quiet).await;
    assert!(ended.get("stdout").is_none() && ended.get("truncated").is_none());
    let path = format!("/v1/sandboxes/{id}/processes/{echo}");
    let bare = harness.get(&format!("{path}?output=false")).await.ok(200);
    assert!(bare.get("stdout").is_none() && bare["exit_code"] == 0);
    for query in ["output=maybe", "colour=1"] {
        let reply = harness.get(&format!("{path}?{query}")).await;
        reply.problem(400, "invalid_request");
    }
    let signalled = started(&harness, &id, json!({"argv": ["signal"]})).await;
    let ended = until_ended(&harness, &id, &signalled).await;
    assert_eq!(
        (&ended["exit_code"], &ended["signal"], &ended["ended_by"]),
        (&Value::Null, &json!(9), &json!("signal"))
    );
}

#[tokio::test]
async fn a_process_is_signalled_until_it_has_ended() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    for (given, number) in [
        (json!("TERM"), 15),
        (json!("SIGINT"), 2),
        (json!("usr1"), 10),
        (json!(9), 9),
        (json!("34"), 34),
    ] {
        let process = started(&harness, &id, json!({"argv": ["hang"]})).await;
        let reply = signal(&harness, &id, &process, given.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (204, ""), "{given}");
        let ended = until_ended(&harness, &id, &process).await;
        assert_eq!(
            (&ended["signal"], &ended["ended_by"]),
            (&json!(number), &json!("signal"))
        );
        let late = signal(&harness, &id, &process, given).await;
        late.problem(409, "conflict");
    }
    for wrong in [json!("TERMINATE"), json!(0), json!(65), json!("")] {
        let detail = signal(&harness, &id, "p1", wrong.clone())
            .await
            .problem(400, "invalid_request");
        assert!(
            detail.contains("hint") && detail.contains("TERM"),
            "{wrong}: {detail}"
        );
    }
    for wrong in [json!(null), json!(["TERM"]), json!(1.5)] {
        let reply = signal(&harness, &id, "p1", wrong).await;
        reply.problem(400, "invalid_request");
    }
    let path = format!("/v1/sandboxes/{id}/processes/p1/signal");
    for body in [json!({}), json!({"signal": "TERM", "to": "all"})] {
        let reply = harness.post(&path, body).await;
        reply.problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_delete_kills_what_runs_and_forgets_what_has_ended() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let process = started(&harness, &id, json!({"argv": ["hang"]})).await;
    let path = format!("/v1/sandboxes/{id}/processes/{process}");
    let delete = async || harness.call(Method::DELETE, &path).await;
    assert_eq!(delete().await.status, 204);
    let ended = until_ended(&harness, &id, &process).await;
    assert_eq!(ended["ended_by"], "killed");
    assert_eq!(harness.factory.guests.running.load(Ordering::SeqCst), 0);
    assert_eq!(delete().await.status, 204);
    delete().await.problem(404, "not_found");
    harness.get(&path).await.problem(404, "not_found");
}

#[tokio::test]
async fn what_is_not_there_is_404_on_every_route() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    for (sandbox, code) in [(id.as_str(), "not_found"), ("nope", "unknown_sandbox")] {
        let path = format!("/v1/sandboxes/{sandbox}/processes/p9");
        harness.get(&path).await.problem(404, code);
        harness.call(Method::DELETE, &path).await.problem(404, code);
        let detail = signal(&harness, sandbox, "p9", json!("TERM"))
            .await
            .problem(404, code);
        assert!(
            detail.contains("p9") || code == "unknown_sandbox",
            "{detail}"
        );
    }
    start(&harness, "nope", json!({"argv": ["echo"]}))
        .await
        .problem(404, "unknown_sandbox");
    harness
        .get("/v1/sandboxes/nope/processes")
        .await
        .problem(404, "unknown_sandbox");
}

#[tokio::test]
async fn values_that_cannot_be_are_refused() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    for body in [
        json!({}),
        json!({"argv": []}),
        json!({"argv": [""]}),
        json!({"argv": ["a\u{0}b"]}),
        json!({"argv": ["a"], "env": {"A=B": "x"}}),
        json!({"argv": ["a"], "cwd": "\u{0}"}),
        json!({"argv": ["a"], "stdin": "open"}),
        json!({"argv": ["a"], "stdin_b64": ""}),
        json!({"argv": ["a"], "tty": true, "rows": 0}),
        json!({"argv": ["a"], "tty": true, "columns": 70000}),
        json!({"argv": ["a"], "timeout_ms": 0}),
        json!({"argv": ["a"], "keep_output": 1}),
    ] {
        let reply = start(&harness, &id, body).await;
        reply.problem(400, "invalid_request");
    }
    let long = json!({"argv": ["a"], "timeout_ms": 1e15});
    start(&harness, &id, long)
        .await
        .problem(422, "not_possible");
    // Longer than any exec may run.
    started(&harness, &id, json!({"argv": ["hang"], "timeout_ms": 1e9})).await;
    let reply = start(&harness, &id, json!({"argv": ["missing"]})).await;
    reply.problem(422, "exec_failed");
    assert_eq!(reply.json()["errno"], 2);
    let large = json!({"argv": ["a"], "env": {"A": "x".repeat(8 << 20)}});
    start(&harness, &id, large).await.problem(413, "too_large");
}

#[tokio::test]
async fn there_are_no_more_processes_than_there_may_be() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    for _ in 0..64 {
        started(&harness, &id, json!({"argv": ["hang"]})).await;
    }
    let detail = start(&harness, &id, json!({"argv": ["hang"]}))
        .await
        .problem(429, "too_many_processes");
    assert!(detail.contains("64"), "{detail}");
    signal(&harness, &id, "p7", json!("KILL")).await;
    until_ended(&harness, &id, "p7").await;
    started(&harness, &id, json!({"argv": ["hang"]})).await;
}

#[tokio::test]
async fn all_who_attach_get_all_output_and_leaving_ends_nothing() {
    let service = Listening::start().await;
    let harness = &service.harness;
    let id = harness.checkout().await;
    let process = started(harness, &id, json!({"argv": ["live"], "stdin": true})).await;
    let mut first = attach(&service, &id, &process, "replay=true").await;
    let hello = first.stdout().await;
    assert!(hello.starts_with("[] {}"), "{hello}");
    let mut second = attach(&service, &id, &process, "").await;
    let both = || async {
        let shown = show(harness, &id, &process).await;
        shown["attached"].as_u64().unwrap()
    };
    assert_eq!(both().await, 2);
    // What they send is one input, text or not.
    first.send(b"\0one").await;
    assert_eq!(first.stdout().await, "one");
    assert_eq!(second.stdout().await, "one");
    second.0.send(Message::text("\0two")).await.unwrap();
    assert_eq!(first.stdout().await, "two");
    assert_eq!(second.stdout().await, "two");
    drop(second);
    first.send(b"\0three").await;
    assert_eq!(first.stdout().await, "three");
    drop(first);
    let shown = show(harness, &id, &process).await;
    assert_eq!(shown["state"], "running");
    // The next one finds all that was missed, and its end is the end of the input.
    let mut third = attach(&service, &id, &process, "replay=true").await;
    let missed = third.stdout().await;
    assert!(missed.ends_with("onetwothree"), "{missed}");
    third.send(&[255, 0]).await;
    let got = third.rest().await;
    assert_eq!((got.stderr.as_str(), got.close), ("bye\n", 1000));
    let causes = &got.status["details"]["causes"];
    assert_eq!(causes, &json!([{"reason": "ExitCode", "message": "7"}]));
    // One that has ended is replayed, with its end.
    let got = attach(&service, &id, &process, "replay=true").await;
    let got = got.rest().await;
    assert_eq!(got.stdout, missed);
    assert_eq!(
        (&got.status["details"]["causes"], got.close),
        (causes, 1000)
    );
}

#[tokio::test]
async fn a_terminal_has_the_size_of_the_client_that_says_so() {
    let service = Listening::start().await;
    let harness = &service.harness;
    let id = harness.checkout().await;
    let terminal = started(
        harness,
        &id,
        json!({"argv": ["live"], "tty": true, "stdin": true}),
    )
    .await;
    let pipes = started(harness, &id, json!({"argv": ["live"], "stdin": true})).await;
    let size = b"\x04{\"Width\":80,\"Height\":24}";
    let mut client = attach(&service, &id, &terminal, "").await;
    client.send(size).await;
    assert_eq!(client.stdout().await, "24x80\n");
    let mut client = attach(&service, &id, &pipes, "").await;
    client.send(size).await;
    client.send(b"\0next").await;
    assert_eq!(client.stdout().await, "next");
}

#[tokio::test]
async fn a_stop_closes_what_is_attached_at_once_and_ends_no_process() {
    let service = Listening::start().await;
    let harness = &service.harness;
    let id = harness.checkout().await;
    let process = started(harness, &id, json!({"argv": ["live"], "stdin": true})).await;
    let mut client = attach(&service, &id, &process, "replay=true").await;
    client.stdout().await;
    harness.stopping.begin();
    let got = client.rest().await;
    assert_eq!(
        (got.close, &got.status["reason"]),
        (1001, &json!("shutting_down"))
    );
    timeout(SOON, harness.stopping.quiet())
        .await
        .expect("nothing is waited for");
    assert_eq!(harness.factory.guests.killed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_cannot_be_attached_to_is_refused_before_the_upgrade() {
    let service = Listening::start().await;
    let harness = &service.harness;
    let id = harness.checkout().await;
    let process = started(harness, &id, json!({"argv": ["hang"]})).await;
    let refused = async |sandbox: &str, process: &str, query: &str| {
        let path = format!("/v1/sandboxes/{sandbox}/processes/{process}/attach?{query}");
        match Client::open_at(&service, &path, Some(PROTOCOL)).await {
            Err(error) => match *error {
                Error::Http(answer) => answer.status().as_u16(),
                error => panic!("{error}"),
            },
            Ok(_) => panic!("{path} was upgraded"),
        }
    };
    assert_eq!(refused("nope", &process, "").await, 404);
    assert_eq!(refused(&id, "p9", "").await, 404);
    assert_eq!(refused(&id, &process, "replay=maybe").await, 400);
    assert_eq!(refused(&id, &process, "stdin=true").await, 400);
    let path = format!("/v1/sandboxes/{id}/processes/{process}/attach");
    let detail = harness.get(&path).await.problem(400, "invalid_request");
    assert!(detail.contains("WebSocket"), "{detail}");
}
