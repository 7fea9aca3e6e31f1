//! What is followed: events and consoles.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures::StreamExt as _;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceExt as _;
use vmint_api::http::Peer;

use crate::support::{Harness, request};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream, as a client reads it.
struct Reader {
    body: BodyDataStream,
    read: String,
}

impl Reader {
    async fn open(harness: &Harness, path: &str, last: Option<&str>) -> Self {
        Self::open_with(harness, request(Method::GET, path), last).await
    }

    /// What a user of the Unix socket reads.
    async fn open_as(harness: &Harness, uid: u32, path: &str) -> Self {
        let builder = request(Method::GET, path).extension(Peer { uid, gid: None });
        Self::open_with(harness, builder, None).await
    }

    async fn open_with(
        harness: &Harness,
        mut builder: http::request::Builder,
        last: Option<&str>,
    ) -> Self {
        if let Some(last) = last {
            builder = builder.header("last-event-id", last);
        }
        let request = builder.body(Body::empty()).unwrap();
        let answer = harness.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().into_data_stream();
        let read = String::new();
        Self { body, read }
    }

    /// Reads on; false at the end of the stream.
    async fn more(&mut self) -> bool {
        let next = timeout(PATIENCE, self.body.next()).await;
        match next.expect("something comes, or the end") {
            Some(bytes) => {
                self.read
                    .push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
                true
            }
            None => false,
        }
    }

    /// The next event: its fields by name.
    async fn event(&mut self) -> Vec<(String, String)> {
        loop {
            while let Some((block, rest)) = self.read.split_once("\n\n") {
                let lines = block.lines().filter(|line| !line.starts_with(':'));
                let field = |line: &str| {
                    let (name, value) = line.split_once(": ").unwrap();
                    (name.to_owned(), value.to_owned())
                };
                let fields: Vec<_> = lines.map(field).collect();
                self.read = rest.to_owned();
                if !fields.is_empty() {
                    return fields;
                }
            }
            assert!(self.more().await, "the stream has ended");
        }
    }

    /// Reads on until an event of this name: its id and its data.
    async fn event_named(&mut self, name: &str) -> (String, Value) {
        loop {
            let fields = self.event().await;
            let get = |key| {
                fields
                    .iter()
                    .find(|(k, _)| k == key)
                    .map(|(_, v)| v.clone())
            };
            if get("event").as_deref() == Some(name) {
                let data = serde_json::from_str(&get("data").unwrap()).unwrap();
                return (get("id").unwrap(), data);
            }
        }
    }
}

#[tokio::test]
async fn events_come_with_ids_and_go_on_where_a_client_was() {
    let harness = Harness::start().await;
    let mut reader = Reader::open(&harness, "/v1/events", None).await;
    assert!(reader.more().await && reader.read.starts_with(": following"));
    let body = serde_json::json!({"metadata": {"marker": "kept-inside"}});
    let id = harness.post("/v1/sandboxes", body).await.ok(201)["id"].clone();
    let (seen, checkout) = reader.event_named("checkout").await;
    assert_eq!(
        (&checkout["sandbox"], &checkout["template"]),
        (&id, &"default".into())
    );
    assert_eq!(checkout["source"], "pool");
    assert!(
        checkout["time"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok()
    );
    assert!(!checkout.to_string().contains("kept-inside"));
    drop(reader);

    let path = format!("/v1/sandboxes/{}", id.as_str().unwrap());
    assert_eq!(harness.call(Method::DELETE, &path).await.status, 204);
    let mut again = Reader::open(&harness, "/v1/events", Some(&seen)).await;
    let (_, release) = again.event_named("release").await;
    assert_eq!(
        (&release["sandbox"], &release["reason"]),
        (&id, &"it was released".into())
    );
}

#[tokio::test]
async fn one_who_was_away_for_too_long_is_told() {
    let harness = Harness::start().await;
    let mut reader = Reader::open(&harness, "/v1/events", Some("7")).await;
    let (id, lagged) = reader.event_named("lagged").await;
    assert_eq!(lagged, serde_json::json!({"lost": null}));
    let mut reader = Reader::open(&harness, "/v1/events", Some(&id)).await;
    let (_, ready) = reader.event_named("clone_ready").await;
    assert!(ready["took_ms"].is_number());
    let bad = request(Method::GET, "/v1/events").header("last-event-id", "x");
    harness
        .send(bad.body(Body::empty()).unwrap())
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn events_end_when_the_service_stops() {
    let harness = Harness::start().await;
    let mut reader = Reader::open(&harness, "/v1/events", None).await;
    assert!(reader.more().await);
    harness.stopping.begin();
    while reader.more().await {}
}

#[tokio::test]
async fn a_console_is_followed_until_its_machine_has_ended() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let write = |text: &str| {
        let console = &harness.factory.console;
        console.send_modify(|written| written.extend(text.as_bytes()));
    };
    write("before ");
    let path = format!("/v1/sandboxes/{id}/console?follow=true");
    let mut reader = Reader::open(&harness, &path, None).await;
    assert!(reader.more().await && reader.read == "before ");
    write("meanwhile ");
    assert!(reader.more().await && reader.read == "before meanwhile ");
    let sandbox = format!("/v1/sandboxes/{id}");
    assert_eq!(harness.call(Method::DELETE, &sandbox).await.status, 204);
    write("at last");
    while reader.more().await {}
    assert_eq!(reader.read, "before meanwhile at last");
    harness.get(&path).await.problem(404, "unknown_sandbox");
}

#[tokio::test]
async fn a_user_follows_its_own_sandboxes_and_root_those_of_all() {
    const ROOT: u32 = 0;
    const ALICE: u32 = 4001;
    const BOB: u32 = 4002;
    let harness = Harness::start().await;
    let checkout = async |uid: u32| {
        let request = request(Method::POST, "/v1/sandboxes").extension(Peer { uid, gid: None });
        let request = request.body(Body::empty()).unwrap();
        harness.send(request).await.ok(201)["id"].clone()
    };
    let mut alice = Reader::open_as(&harness, ALICE, "/v1/events").await;
    let mut root = Reader::open_as(&harness, ROOT, "/v1/events").await;
    let (bobs, alices) = (checkout(BOB).await, checkout(ALICE).await);
    for id in [&bobs, &alices] {
        let path = format!("/v1/sandboxes/{}", id.as_str().unwrap());
        let request = request(Method::DELETE, &path).extension(Peer {
            uid: ROOT,
            gid: None,
        });
        let gone = harness.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(gone.status, 204);
        assert_eq!(root.event_named("checkout").await.1["sandbox"], *id);
    }
    // The events of Bob's sandbox came before these.
    for (name, field) in [
        ("checkout", "sandbox"),
        ("release", "sandbox"),
        ("clone_ended", "clone"),
    ] {
        assert_eq!(alice.event_named(name).await.1[field], alices, "{name}");
    }
    for id in [&bobs, &alices] {
        assert_eq!(root.event_named("release").await.1["sandbox"], *id);
    }
}

#[tokio::test]
async fn a_console_has_sixteen_followers_and_no_more() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let path = format!("/v1/sandboxes/{id}/console?follow=true");
    let mut followers = Vec::new();
    for _ in 0..16 {
        followers.push(Reader::open(&harness, &path, None).await);
    }
    let detail = harness.get(&path).await.problem(429, "too_many_followers");
    assert!(detail.contains("16 clients"), "{detail}");
    // Who reads it once is no follower, and a follower that leaves makes room.
    let once = format!("/v1/sandboxes/{id}/console");
    assert_eq!(harness.get(&once).await.status, 200);
    followers.pop();
    Reader::open(&harness, &path, None).await;
}
