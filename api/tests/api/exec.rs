//! Commands.

use serde_json::{Value, json};

use crate::support::{Harness, Reply};

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
    exec(&harness, &id, json!({"argv": ["mute"]}))
        .await
        .problem(502, "guest_error");
    exec(&harness, &id, json!({"argv": ["crash"]})).await;
    harness
        .until("the sandbox is gone", || {
            harness.cache.sandbox(&id).is_none()
        })
        .await;
    exec(&harness, &id, json!({"argv": ["echo"]}))
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
    let detail = exec(&harness, &id, json!({"argv": ["user"], "user": "root"}))
        .await
        .problem(422, "not_possible");
    assert!(detail.contains("user"), "{detail}");
}
