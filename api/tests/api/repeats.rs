//! `Idempotency-Key`, and filters by metadata.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{Harness, Reply, request};

async fn keyed(harness: &Harness, key: &str, body: Value) -> Reply {
    harness.send(keyed_request(key, &body)).await
}

fn keyed_request(key: &str, body: &Value) -> http::Request<Body> {
    let request = request(Method::POST, "/v1/sandboxes")
        .header("content-type", "application/json")
        .header("idempotency-key", key);
    request.body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_answer_even_after_the_end() {
    let harness = Harness::start().await;
    let body = json!({"metadata": {"job": "17"}, "env": {"A": "b"}});
    let first = keyed(&harness, "job 17", body.clone()).await;
    let (sandbox, location) = (first.ok(201), first.header("location").to_owned());
    let again = keyed(&harness, "job 17", body.clone()).await;
    assert_eq!(
        (again.ok(201), again.header("location")),
        (sandbox.clone(), &*location)
    );
    assert_eq!(harness.call(Method::DELETE, &location).await.status, 204);
    assert_eq!(keyed(&harness, "job 17", body).await.ok(201), sandbox);
    harness.get(&location).await.problem(404, "unknown_sandbox");
    keyed(&harness, "job 17", json!({}))
        .await
        .problem(409, "conflict");
    let other = keyed(&harness, "job 18", json!({})).await.ok(201);
    assert_ne!(other["id"], sandbox["id"]);
}

#[tokio::test]
async fn a_key_that_cannot_be_is_refused() {
    let harness = Harness::start().await;
    for key in ["", &"k".repeat(256)] {
        keyed(&harness, key, json!({}))
            .await
            .problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn one_who_hangs_up_while_it_waits_leaves_its_key_to_the_next() {
    let harness = Harness::start().await;
    harness.factory.launches.send_replace(false);
    let (_first, _second) = (harness.checkout().await, harness.checkout().await);
    let waiters = || harness.cache.pool("default").unwrap().waiters;
    let body = json!({"wait_ms": 20_000});
    let ask = || tokio::spawn(harness.router.clone().oneshot(keyed_request("k", &body)));
    let hangs_up = ask();
    harness.until("the first waits", || waiters() == 1).await;
    let next = ask();
    hangs_up.abort();
    assert!(hangs_up.await.unwrap_err().is_cancelled());
    harness
        .until("the next waits in its place", || waiters() == 1)
        .await;
    harness.factory.launches.send_replace(true);
    assert_eq!(next.await.unwrap().unwrap().status(), 201);
    assert_eq!(harness.cache.sandboxes(None).len(), 3);
}

#[tokio::test]
async fn the_list_is_filtered_by_metadata() {
    let harness = Harness::start().await;
    let mut ids = Vec::new();
    for metadata in [
        json!({"job": "17", "tier": "a b"}),
        json!({"job": "17"}),
        json!({}),
    ] {
        let sandbox = harness
            .post("/v1/sandboxes", json!({"metadata": metadata}))
            .await
            .ok(201);
        ids.push(sandbox["id"].clone());
    }
    for (query, expected) in [
        ("metadata.job=17", &ids[..2]),
        ("metadata.job=17&metadata.tier=a+b", &ids[..1]),
        ("metadata.job=17&template=default", &ids[..2]),
        ("metadata.job=17&template=other", &[]),
        ("metadata.job=1", &[]),
        ("metadata.none=", &[]),
    ] {
        let list = harness.get(&format!("/v1/sandboxes?{query}")).await.ok(200);
        let found: Vec<_> = list["sandboxes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["id"].clone())
            .collect();
        assert_eq!(found, expected, "{query}");
    }
    for bad in [
        "metadata.=x",
        "metadata=x",
        "metadata.a=1&metadata.a=2",
        "other.a=1",
    ] {
        let reply = harness.get(&format!("/v1/sandboxes?{bad}")).await;
        reply.problem(400, "invalid_request");
    }
}
