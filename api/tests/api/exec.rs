//! Commands.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

use crate::listeners::Listening;
use crate::support::{Harness, Reply, request};

async fn exec(harness: &Harness, id: &str, body: Value) -> Reply {
    harness
        .post(&format!("/v1/sandboxes/{id}/exec"), body)
        .await
}

#[tokio::test]
async fn an_outcome_has_the_code_the_streams_and_the_time() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let outcome = exec(&harness, &id, json!({"argv": ["echo", "a", "b"]}))
        .await
        .ok(200);
    let expected = json!({"exit_code": 0, "signal": null, "stdout": "a b\n", "stderr": "err\n", "truncated": false,
        "elapsed_ms": 1.5});
    assert_eq!(outcome, expected);
    let outcome = exec(&harness, &id, json!({"argv": ["exit", "3"]}))
        .await
        .ok(200);
    assert_eq!(outcome["exit_code"], 3);
    let outcome = exec(&harness, &id, json!({"argv": ["signal"]}))
        .await
        .ok(200);
    assert_eq!(
        (&outcome["exit_code"], &outcome["signal"]),
        (&Value::Null, &json!(9))
    );
}

#[tokio::test]
async fn a_field_that_is_null_is_as_good_as_absent() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let body = json!({"argv": ["echo"], "env": null, "cwd": null, "user": null, "stdin_b64": null, "timeout_ms": null});
    exec(&harness, &id, body).await.ok(200);
}

#[tokio::test]
async fn streams_that_are_no_text_come_as_base64_alone() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let outcome = exec(&harness, &id, json!({"argv": ["binary"]}))
        .await
        .ok(200);
    assert_eq!(outcome["stdout_b64"], "/wA=");
    assert!(
        outcome.get("stdout").is_none() && outcome.get("stderr_b64").is_none(),
        "{outcome}"
    );
}

#[tokio::test]
async fn input_environment_and_directory_reach_the_command() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let outcome = exec(
        &harness,
        &id,
        json!({"argv": ["cat"], "stdin_b64": "aGVsbG8="}),
    )
    .await
    .ok(200);
    assert_eq!(outcome["stdout"], "hello");
    let body =
        json!({"argv": ["env"], "env": {"K": "v"}, "cwd": "/tmp", "user": "", "timeout_ms": 1000});
    assert_eq!(
        exec(&harness, &id, body).await.ok(200)["stdout"],
        r#"{"K": "v"} Some("/tmp")"#
    );
    let large = json!({"argv": ["cat"], "stdin_b64": "QUFB".repeat(1 << 20)});
    assert_eq!(
        exec(&harness, &id, large).await.ok(200)["stdout"]
            .as_str()
            .unwrap()
            .len(),
        3 << 20
    );
    let too_large = json!({"argv": ["cat"], "stdin_b64": "QUFB".repeat(2 << 20)});
    exec(&harness, &id, too_large)
        .await
        .problem(413, "too_large");
}

#[tokio::test]
async fn failures_have_the_codes_of_the_contract() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let reply = exec(&harness, &id, json!({"argv": ["missing"]})).await;
    reply.problem(422, "exec_failed");
    assert_eq!(reply.json()["errno"], 2);
    let reply = exec(&harness, &id, json!({"argv": ["locked"]})).await;
    reply.problem(422, "exec_failed");
    assert_eq!(reply.json()["errno"], 13);
    let reply = exec(&harness, &id, json!({"argv": ["slow"], "timeout_ms": 5})).await;
    reply.problem(504, "timeout");
    let body = reply.json();
    assert_eq!(
        (&body["stdout"], &body["stderr_b64"]),
        (&json!("so far\n"), &json!("/w=="))
    );
    assert_eq!(
        (&body["truncated"], body.get("stderr")),
        (&json!(false), None)
    );
    exec(&harness, &id, json!({"argv": ["crowded"]}))
        .await
        .problem(429, "too_many_processes");
    exec(&harness, &id, json!({"argv": ["mute"]}))
        .await
        .problem(502, "guest_error");
    exec(&harness, &id, json!({"argv": ["crash"]})).await;
    harness
        .until("the sandbox is gone", || {
            harness.cache.sandbox(&id).is_err()
        })
        .await;
    exec(&harness, &id, json!({"argv": ["echo"]}))
        .await
        .problem(404, "unknown_sandbox");
}

#[tokio::test]
async fn output_that_is_cut_within_a_character_stays_text() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let outcome = exec(&harness, &id, json!({"argv": ["cut"]})).await.ok(200);
    assert_eq!(outcome["stdout"], "a");
    assert_eq!(outcome["truncated"], true);
}

#[tokio::test]
async fn an_exec_takes_no_idempotency_key() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    for path in ["exec", "processes"] {
        let request = request(Method::POST, &format!("/v1/sandboxes/{id}/{path}"))
            .header("content-type", "application/json")
            .header("idempotency-key", "job 17")
            .body(Body::from(json!({"argv": ["echo"]}).to_string()));
        let reply = harness.send(request.unwrap()).await;
        let detail = reply.problem(400, "invalid_request");
        assert!(detail.contains("Idempotency-Key"), "{detail}");
    }
    let listed = harness.get(&format!("/v1/sandboxes/{id}/processes")).await;
    assert_eq!(listed.ok(200)["processes"], json!([]));
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_command() {
    let service = Listening::start().await;
    let harness = &service.harness;
    let id = harness.checkout().await;
    let guests = &harness.factory.guests;
    let body = json!({"argv": ["hang"]}).to_string();
    let head = format!(
        "POST /v1/sandboxes/{id}/exec HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for killed in 1..=2 {
        let runs = || guests.running.load(Ordering::SeqCst) == 1;
        let ended = || guests.killed.load(Ordering::SeqCst) == killed;
        if killed == 1 {
            let mut tcp = TcpStream::connect(&service.address).await.unwrap();
            tcp.write_all(head.as_bytes()).await.unwrap();
            harness.until("it runs", runs).await;
            drop(tcp);
        } else {
            let mut unix = UnixStream::connect(&service.socket).await.unwrap();
            unix.write_all(head.as_bytes()).await.unwrap();
            harness.until("it runs", runs).await;
            drop(unix);
        }
        harness.until("it is killed", ended).await;
    }
}

#[tokio::test]
async fn a_guest_that_is_outdated_is_shown_and_only_released() {
    let harness = Harness::start().await;
    let before = harness.checkout().await;
    let path = format!("/v1/sandboxes/{before}");
    assert_eq!(harness.get(&path).await.ok(200)["agent"], "current");
    let guests = &harness.factory.guests;
    guests.outdated.store(true, Ordering::SeqCst);
    let id = harness.checkout().await;
    let path = format!("/v1/sandboxes/{id}");
    assert_eq!(harness.get(&path).await.ok(200)["agent"], "outdated");
    let body = || json!({"argv": ["echo"]});
    for reply in [
        exec(&harness, &id, body()).await,
        harness.post(&format!("{path}/processes"), body()).await,
        harness.get(&format!("{path}/processes")).await,
    ] {
        let detail = reply.problem(422, "not_possible");
        assert!(detail.contains("hint: release it"), "{detail}");
    }
    let renewal = json!({"ttl_s": 60});
    let renewed = harness.post(&format!("{path}/renew"), renewal).await;
    renewed.ok(200);
    assert_eq!(harness.call(Method::DELETE, &path).await.status, 204);
}

#[tokio::test]
async fn values_that_cannot_be_are_refused() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    for body in [
        json!({}),
        json!({"argv": []}),
        json!({"argv": [""]}),
        json!({"argv": "echo"}),
        json!({"argv": ["a\u{0}b"]}),
        json!({"argv": ["a"], "env": {"": "x"}}),
        json!({"argv": ["a"], "env": {"A=B": "x"}}),
        json!({"argv": ["a"], "env": {"A": 1}}),
        json!({"argv": ["a"], "cwd": "\u{0}"}),
        json!({"argv": ["a"], "stdin_b64": "not base64!"}),
        json!({"argv": ["a"], "timeout_ms": 0}),
        json!({"argv": ["a"], "timeout_ms": -5}),
    ] {
        exec(&harness, &id, body)
            .await
            .problem(400, "invalid_request");
    }
    exec(&harness, &id, json!({"argv": ["a"], "timeout_ms": 1e12}))
        .await
        .problem(422, "not_possible");
}
