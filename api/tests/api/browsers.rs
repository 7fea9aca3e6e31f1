//! Load balancers, which are not asked for a host, and browsers, which are not trusted.

use axum::body::Body;
use http::{Method, Request};
use vmint_api::http::Origin;

use crate::listeners::Listening;
use crate::support::{Harness, Reply};

async fn get(harness: &Harness, origin: Origin, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get(path).extension(origin);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    harness.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn load_balancers_speak_http_1_0_and_name_no_host_or_any() {
    let listening = Listening::start().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        for head in [
            "HTTP/1.0\r\n",
            "HTTP/1.0\r\nHost: example.org\r\n",
            "HTTP/1.1\r\nHost: example.org:80\r\nConnection: close\r\n",
            "HTTP/1.1\r\nHost: 10.1.2.3\r\nHost: b\r\nConnection: close\r\n",
            "HTTP/1.1\r\nConnection: close\r\n",
        ] {
            let answer = listening
                .ask_as(None, format!("GET {path} {head}\r\n"))
                .await;
            assert!(answer.contains(" 200 OK"), "{path} {head}: {answer}");
            let (head_of_get, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                !body.is_empty() && head_of_get.starts_with(&head[..8]),
                "{answer}"
            );
            let answer = listening
                .ask_as(None, format!("HEAD {path} {head}\r\n"))
                .await;
            assert!(answer.contains(" 200 OK"), "{path} {head}: {answer}");
            assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
        }
    }
    for request in [
        "GET /v1/pools HTTP/1.0\r\n\r\n",
        "GET /openapi.json HTTP/1.0\r\nHost: a.b\r\n\r\n",
    ] {
        let answer = listening.ask_as(None, request.to_owned()).await;
        assert!(answer.starts_with("HTTP/1.0 400"), "{answer}");
    }
    listening.harness.cache.begin_stop();
    let answer = listening
        .ask_as(None, "HEAD /readyz HTTP/1.0\r\n\r\n".to_owned())
        .await;
    assert!(
        answer.starts_with("HTTP/1.0 503") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn pages_of_others_are_refused_by_what_browsers_say_of_them() {
    let harness = Harness::start().await;
    for (origin, path, headers) in [
        (Origin::Unix, "/v1/pools", ("origin", "http://localhost")),
        (Origin::Unix, "/healthz", ("origin", "null")),
        (Origin::Unix, "/v1/pools", ("sec-fetch-site", "cross-site")),
        (Origin::Tcp, "/v1/pools", ("sec-fetch-site", "cross-site")),
        (Origin::Tcp, "/v1/pools", ("sec-fetch-site", "same-site")),
        (Origin::Tcp, "/metrics", ("sec-fetch-site", "cross-site")),
        (Origin::Tcp, "/metrics", ("origin", "http://example.org")),
        (Origin::Tcp, "/v1/pools", ("origin", "http://example.org")),
    ] {
        let reply = get(&harness, origin, path, &[("host", "localhost"), headers]).await;
        let detail = reply.problem(400, "invalid_request");
        assert!(detail.to_lowercase().contains(headers.0), "{detail}");
    }
    for (origin, headers) in [
        (Origin::Unix, ("sec-fetch-site", "none")),
        (Origin::Tcp, ("sec-fetch-site", "none")),
        (Origin::Tcp, ("sec-fetch-site", "same-origin")),
        (Origin::Tcp, ("origin", "http://localhost")),
    ] {
        let reply = get(
            &harness,
            origin,
            "/v1/pools",
            &[("host", "localhost"), headers],
        )
        .await;
        reply.ok(200);
    }
    let no_host = get(&harness, Origin::Tcp, "/metrics", &[("origin", "http://")]).await;
    no_host.problem(400, "invalid_request");
}

#[tokio::test]
async fn every_answer_tells_browsers_to_guess_and_keep_nothing() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    for (method, path) in [
        (Method::GET, "/healthz".to_owned()),
        (Method::GET, "/nope".to_owned()),
        (Method::GET, format!("/v1/sandboxes/{id}/console")),
        (
            Method::GET,
            format!("/v1/sandboxes/{id}/files?path=/x.html"),
        ),
        (Method::DELETE, format!("/v1/sandboxes/{id}")),
    ] {
        let reply = harness.call(method, &path).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(reply.header(name), value, "{path}");
        }
    }
}
