//! What one request costs the service in memory at its worst, counted in a process of its own.
#![allow(clippy::unwrap_used)]

mod count;
#[allow(dead_code)]
mod support;

use axum::body::Body;
use http::Method;
use tower::ServiceExt as _;
use vmint_api::http::limits::CHECKOUT_BODY_MAX_BYTES;

use crate::support::{Harness, Reply, request};

/// More than a body and what is parsed of it; a fraction of what a tree of its values takes.
const PEAK_MAX_BYTES: usize = 64 << 20;

/// A body of the largest size: `head`, then `item` as often as there is room for it, then `tail`.
fn bomb(head: &str, item: &str, tail: &str) -> String {
    let room = CHECKOUT_BODY_MAX_BYTES - head.len() - tail.len();
    let mut body = head.to_owned();
    body.reserve_exact(room + tail.len());
    // A list ends without a comma.
    body.push_str(item.repeat(room / item.len()).trim_end_matches(','));
    body.push_str(tail);
    body
}

/// Names that differ, in an object.
fn names(head: &str, tail: &str) -> String {
    let mut body = String::with_capacity(CHECKOUT_BODY_MAX_BYTES);
    body.push_str(head);
    for nth in 0_u32.. {
        let item = format!("\"{nth:x}\":\"\",");
        if body.len() + item.len() + tail.len() > CHECKOUT_BODY_MAX_BYTES {
            break;
        }
        body.push_str(&item);
    }
    body.truncate(body.len() - 1);
    body + tail
}

/// A request: its path, its body, and the code of its refusal.
struct Bomb(&'static str, String, &'static str);

const CHECKOUT: &str = "/v1/sandboxes";
const EXEC: &str = "/v1/sandboxes/ID/exec";
const INVALID: &str = "invalid_request";
const NOT_POSSIBLE: &str = "not_possible";

/// A checkout with as much as one may have, and an exec likewise.
fn largest() -> [(&'static str, String, u16); 2] {
    // 64 files, 4 MiB in all, in base64.
    let content = "QUJD".repeat((4 << 20) / 64 / 3);
    let file = |nth| format!("{{\"path\":\"/f{nth}\",\"content_b64\":\"{content}\"}}");
    let files: Vec<String> = (0..64).map(file).collect();
    let env: Vec<String> = (0..255)
        .map(|nth| format!("\"N{nth}\":\"{}\"", "v".repeat(500)))
        .collect();
    let checkout = format!(
        "{{\"files\":[{}],\"env\":{{{}}}}}",
        files.join(","),
        env.join(",")
    );
    let exec = bomb("{\"argv\":[\"cat\"],\"stdin_b64\":\"", "QUJD", "\"}");
    [(CHECKOUT, checkout, 201), (EXEC, exec, 200)]
}

fn bombs() -> [Bomb; 13] {
    [
        Bomb(CHECKOUT, bomb("{\"files\":[", "{\"\":0},", "]}"), INVALID),
        Bomb(CHECKOUT, bomb("{\"files\":[", "{},", "]}"), NOT_POSSIBLE),
        Bomb(CHECKOUT, bomb("{\"files\":[", "[[]],", "]}"), INVALID),
        Bomb(CHECKOUT, bomb("{\"files\":[{", "\"a\":[],", "}]}"), INVALID),
        Bomb(CHECKOUT, bomb("{\"nics\":", "[", ""), INVALID),
        Bomb(CHECKOUT, bomb("{\"nics\":[", "{},", "]}"), NOT_POSSIBLE),
        Bomb(CHECKOUT, names("{\"env\":{", "}}"), NOT_POSSIBLE),
        Bomb(CHECKOUT, names("{\"metadata\":{", "}}"), NOT_POSSIBLE),
        Bomb(CHECKOUT, bomb("{\"", "x", "\":0}"), INVALID),
        Bomb(
            CHECKOUT,
            bomb("{\"template\":\"", "x", "\"}"),
            "unknown_template",
        ),
        Bomb(
            CHECKOUT,
            bomb(
                "{\"files\":[{\"path\":\"/a\",\"content_b64\":\"",
                "AAAA",
                "\"}]}",
            ),
            NOT_POSSIBLE,
        ),
        Bomb(EXEC, bomb("{\"argv\":[", "\"a\",", "]}"), NOT_POSSIBLE),
        Bomb(
            EXEC,
            names("{\"argv\":[\"true\"],\"env\":{", "}}"),
            NOT_POSSIBLE,
        ),
    ]
}

#[tokio::test]
async fn a_request_of_eight_mebibytes_costs_no_more_than_a_few_times_as_much() {
    let harness = Harness::start().await;
    let sandbox = harness.checkout().await;
    for (path, body, status) in largest() {
        let path = path.replace("ID", &sandbox);
        let what = format!("{path}, {} bytes that are wanted", body.len());
        assert!(body.len() > CHECKOUT_BODY_MAX_BYTES / 3 * 2, "{what}");
        let mut builder = request(Method::POST, &path).header("content-type", "application/json");
        if path == CHECKOUT {
            builder = builder.header("idempotency-key", "the largest");
        }
        let request = builder.body(Body::from(body)).unwrap();
        let peak = count::Peak::begin();
        let answer = harness.router.clone().oneshot(request).await.unwrap();
        let grown = peak.grown_bytes();
        assert!(
            grown < PEAK_MAX_BYTES,
            "{what}: {} MiB at the peak",
            grown >> 20
        );
        Reply::read(answer).await.ok(status);
    }
    for (nth, Bomb(path, body, code)) in bombs().into_iter().enumerate() {
        let path = path.replace("ID", &sandbox);
        let what = format!("{path} {nth}: {:.60}", body);
        assert!(
            body.len() <= CHECKOUT_BODY_MAX_BYTES,
            "{what}: it is read at all"
        );
        // Every other checkout by the way of a key, which reads no body twice.
        let mut builder = request(Method::POST, &path).header("content-type", "application/json");
        if nth % 2 == 1 && path == CHECKOUT {
            builder = builder.header("idempotency-key", "k");
        }
        let request = builder.body(Body::from(body)).unwrap();
        // The client's own copy is there before, and counts on neither side.
        let peak = count::Peak::begin();
        let answer = harness.router.clone().oneshot(request).await.unwrap();
        let grown = peak.grown_bytes();
        let status = answer.status().as_u16();
        assert!(
            grown < PEAK_MAX_BYTES,
            "{what}: {} MiB at the peak",
            grown >> 20
        );
        Reply::read(answer).await.problem(status, code);
    }
}
