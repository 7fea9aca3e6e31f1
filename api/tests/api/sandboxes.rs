//! Lists, renewals, releases, consoles.

use http::Method;
use serde_json::json;

use crate::support::{FakeFactory, Harness, plan};

#[tokio::test]
async fn only_leased_sandboxes_are_listed() {
    let mut other = plan();
    other.spec.name = "python".to_owned();
    let harness = Harness::start_with(FakeFactory::new(), vec![plan(), other]);
    harness.until_ready().await;
    let ids = |reply: serde_json::Value| {
        let sandboxes = reply["sandboxes"].as_array().unwrap().clone();
        sandboxes
            .into_iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        harness.get("/v1/sandboxes").await.ok(200),
        json!({"sandboxes": []})
    );
    let id = harness.checkout().await;
    assert_eq!(
        ids(harness.get("/v1/sandboxes").await.ok(200)),
        [id.as_str()]
    );
    assert_eq!(
        ids(harness.get("/v1/sandboxes?template=default").await.ok(200)),
        [id]
    );
    assert!(ids(harness.get("/v1/sandboxes?template=python").await.ok(200)).is_empty());
    assert!(ids(harness.get("/v1/sandboxes?template=nope").await.ok(200)).is_empty());
}

#[tokio::test]
async fn a_renewal_sets_the_lease_anew() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let path = format!("/v1/sandboxes/{id}/renew");
    let before = harness.get(&format!("/v1/sandboxes/{id}")).await.ok(200);
    let after = harness.post(&path, json!({"ttl_s": 3600})).await.ok(200);
    assert!(after["expires_at"].as_str().unwrap() > before["expires_at"].as_str().unwrap());
    for body in [
        json!({}),
        json!({"ttl_s": -1}),
        json!({"ttl_s": null}),
        json!({"ttl_s": "1h"}),
    ] {
        harness
            .post(&path, body)
            .await
            .problem(400, "invalid_request");
    }
    for ttl_s in [86_401, 0] {
        let detail = harness
            .post(&path, json!({"ttl_s": ttl_s}))
            .await
            .problem(422, "not_possible");
        assert!(detail.contains("86400"), "the limit is told: {detail}");
    }
    harness
        .post("/v1/sandboxes/nope/renew", json!({"ttl_s": 1}))
        .await
        .problem(404, "unknown_sandbox");
}

#[tokio::test]
async fn a_released_sandbox_is_gone() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let path = format!("/v1/sandboxes/{id}");
    let reply = harness.call(Method::DELETE, &path).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (204, ""));
    harness
        .call(Method::DELETE, &path)
        .await
        .problem(404, "unknown_sandbox");
    harness.get(&path).await.problem(404, "unknown_sandbox");
    harness
        .post(&format!("{path}/exec"), json!({"argv": ["echo"]}))
        .await
        .problem(404, "unknown_sandbox");
    harness
        .get(&format!("{path}/console"))
        .await
        .problem(404, "unknown_sandbox");
}

#[tokio::test]
async fn ids_that_cannot_be_are_unknown() {
    let harness = Harness::start().await;
    for id in ["nope", "..%2F..%2Fetc", "%00", "a%20b", &"x".repeat(1000)] {
        harness
            .get(&format!("/v1/sandboxes/{id}"))
            .await
            .problem(404, "unknown_sandbox");
    }
    harness
        .get("/v1/sandboxes/%ff")
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn the_console_is_what_the_guest_wrote() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let reply = harness
        .get(&format!("/v1/sandboxes/{id}/console?follow=false"))
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (200, "[    0.000000] Linux\n")
    );
    assert!(reply.header("content-type").starts_with("text/plain"));
}

#[tokio::test]
async fn a_query_has_a_bounded_number_of_parameters() {
    let harness = Harness::start().await;
    let query = |filters: usize| {
        let filters: Vec<_> = (0..filters).map(|n| format!("metadata.k{n}=v")).collect();
        format!("/v1/sandboxes?{}", filters.join("&"))
    };
    harness.get(&query(128)).await.ok(200);
    let refused = harness.get(&query(129)).await;
    assert_eq!(refused.status, 400);
    let detail = refused.json()["detail"].to_string();
    assert!(
        detail.contains("129 parameters, and 128 is the limit"),
        "{detail}"
    );
}
