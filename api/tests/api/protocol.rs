//! What holds for every request: errors, limits, ids, the Host header.

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;
use vmint_api::http::Origin;
use vmint_api::http::limits::CHECKOUT_BODY_MAX_BYTES;

use crate::support::Harness;

#[tokio::test]
async fn a_path_that_is_not_there_is_a_problem() {
    let harness = Harness::start().await;
    for path in ["/", "/nope", "/v1", "/v1/sandboxes/a/b/c", "/v1/sandboxes/"] {
        harness.get(path).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_method_that_is_not_there_is_a_problem_that_says_which_are() {
    let harness = Harness::start().await;
    let renew = format!("/v1/sandboxes/{}/renew", harness.checkout().await);
    for (method, path, allow) in [
        (Method::DELETE, "/healthz", "GET,HEAD"),
        (Method::PUT, "/v1/sandboxes", "GET,HEAD,POST"),
        (Method::POST, "/v1/pools/default", "GET,HEAD,PATCH"),
        (Method::GET, renew.as_str(), "POST"),
        (Method::POST, "/openapi.json", "GET,HEAD"),
        (
            Method::from_bytes(b"BREW").unwrap(),
            "/v1/pools",
            "GET,HEAD",
        ),
    ] {
        let reply = harness.call(method, path).await;
        reply.problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), allow, "{path}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let exec = format!("/v1/sandboxes/{id}/exec");
    let send = async |path: &str, content_type: Option<&str>, body: &str| {
        let mut request = Request::post(path).extension(Origin::Unix);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        harness
            .send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    };
    let json = Some("application/json");
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "[\"default\"]",
        "{\"argv\": [\"echo\"]} x",
        "\u{0}",
    ] {
        send(&exec, json, body)
            .await
            .problem(400, "invalid_request");
    }
    let body = r#"{"argv": ["echo"]}"#;
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonx"),
    ] {
        send(&exec, content_type, body)
            .await
            .problem(415, "unsupported_media_type");
        send("/v1/sandboxes", content_type, "{}")
            .await
            .problem(415, "unsupported_media_type");
    }
    send(&exec, Some("Application/JSON; charset=utf-8"), body)
        .await
        .ok(200);
}

#[tokio::test]
async fn unknown_fields_and_parameters_are_refused_by_name() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    for (method, path, body) in [
        (
            Method::POST,
            "/v1/sandboxes".to_owned(),
            json!({"colour": 1}),
        ),
        (
            Method::POST,
            format!("/v1/sandboxes/{id}/exec"),
            json!({"argv": ["x"], "colour": 1}),
        ),
        (
            Method::POST,
            format!("/v1/sandboxes/{id}/renew"),
            json!({"ttl_s": 1, "colour": 1}),
        ),
        (
            Method::PATCH,
            "/v1/pools/default".to_owned(),
            json!({"colour": 1}),
        ),
    ] {
        let detail = harness
            .call_with(method, &path, body)
            .await
            .problem(400, "invalid_request");
        assert!(detail.contains("colour"), "{detail}");
    }
    for path in [
        "/v1/sandboxes",
        "/v1/pools",
        "/v1/pools/default",
        "/v1/templates",
        "/v1/templates/default",
        "/v1/builds",
    ] {
        let detail = harness
            .get(&format!("{path}?colour=1"))
            .await
            .problem(400, "invalid_request");
        assert!(detail.contains("colour"), "{detail}");
    }
    harness
        .get("/v1/sandboxes?template=a&template=b")
        .await
        .problem(400, "invalid_request");
    harness
        .get(&format!("/v1/sandboxes/{id}/console?follow=maybe"))
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn a_body_above_its_limit_is_refused_whether_it_says_its_size_or_not() {
    let harness = Harness::start().await;
    let large = "x".repeat(CHECKOUT_BODY_MAX_BYTES + 1);
    let declared = Request::post("/v1/sandboxes")
        .extension(Origin::Unix)
        .header("content-type", "application/json")
        .header("content-length", large.len());
    harness
        .send(declared.body(Body::from(large.clone())).unwrap())
        .await
        .problem(413, "too_large");
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>("{"), Ok(large.leak())]);
    let undeclared = Request::post("/v1/sandboxes")
        .extension(Origin::Unix)
        .header("content-type", "application/json");
    harness
        .send(undeclared.body(Body::from_stream(chunks)).unwrap())
        .await
        .problem(413, "too_large");
}

#[tokio::test]
async fn on_tcp_the_host_must_be_loopback() {
    let harness = Harness::start().await;
    let get = |host: Option<&str>, origin: Origin| {
        let mut request = Request::get("/v1/pools").extension(origin);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(Body::empty()).unwrap()
    };
    for host in [
        "localhost",
        "localhost:7070",
        "127.0.0.1:7070",
        "[::1]:7070",
        "[::1]",
    ] {
        harness.send(get(Some(host), Origin::Tcp)).await.ok(200);
    }
    let crossed = |origin: &str| {
        let request = Request::get("/v1/pools").header("host", "localhost:7070");
        let request = request.header("origin", origin).extension(Origin::Tcp);
        request.body(Body::empty()).unwrap()
    };
    harness.send(crossed("http://localhost:7070")).await.ok(200);
    for origin in [
        "null",
        "http://example.org",
        "http://localhost",
        "http://localhost:8080",
        "https://localhost:7070",
        "http://localhost:7070.example.org",
    ] {
        let detail = harness
            .send(crossed(origin))
            .await
            .problem(400, "invalid_request");
        assert!(detail.contains("Origin"), "{detail}");
    }
    for host in [
        "example.org",
        "example.org:7070",
        "10.0.0.1",
        "localhost.example.org",
        "",
        "a b",
    ] {
        harness
            .send(get(Some(host), Origin::Tcp))
            .await
            .problem(400, "invalid_request");
        harness.send(get(Some(host), Origin::Unix)).await.ok(200);
    }
    harness
        .send(get(None, Origin::Tcp))
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn a_request_keeps_its_id_where_that_is_harmless() {
    let harness = Harness::start().await;
    let get = async |id: &str| {
        let request = Request::get("/healthz")
            .extension(Origin::Unix)
            .header("x-request-id", id);
        harness
            .send(request.body(Body::empty()).unwrap())
            .await
            .header("x-request-id")
            .to_owned()
    };
    assert_eq!(get("job-17/a:b").await, "job-17/a:b");
    for bad in ["", "a b", "<script>", &"x".repeat(129)] {
        let id = get(bad).await;
        assert!(id.len() == 36 && id != bad, "{bad:?} became {id:?}");
    }
    let (first, second) = (get("").await, get("").await);
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_service_goes_on() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let exec = format!("/v1/sandboxes/{id}/exec");
    let detail = harness
        .post(&exec, json!({"argv": ["panic"]}))
        .await
        .problem(500, "internal");
    assert!(
        !detail.contains("script"),
        "what a panic says stays inside: {detail}"
    );
    harness
        .post(&exec, json!({"argv": ["echo", "on"]}))
        .await
        .ok(200);
}
