//! What is bound to a sandbox at its checkout, and where it must never show.

use std::io;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use vmint_api::http::Peer;
use vmint_cache::{BoundFile, SocketOwner};

use crate::listeners::Listening;
use crate::support::{Harness, request};

#[tokio::test]
async fn host_name_environment_and_files_reach_the_guest() {
    let harness = Harness::start().await;
    let files = json!([
        {"path": "/etc/job.json", "content_b64": BASE64_STANDARD.encode("{}"), "mode": "0600"},
        {"path": "/run/x", "content_b64": ""}
    ]);
    let body = json!({"hostname": "job-17", "env": {"TOKEN": "t"}, "files": files});
    let sandbox = harness.post("/v1/sandboxes", body).await.ok(201);
    assert_eq!(sandbox["hostname"], "job-17");
    let bound = harness.factory.bound.lock().unwrap().clone();
    assert_eq!(bound.hostname.as_deref(), Some("job-17"));
    assert_eq!(bound.env["TOKEN"], "t");
    let file = |path: &str, content: &[u8], mode| BoundFile {
        path: path.to_owned(),
        content: content.to_vec(),
        mode,
    };
    let expected = [
        file("/etc/job.json", b"{}", Some(0o600)),
        file("/run/x", b"", None),
    ];
    assert_eq!(bound.files, expected);
}

#[tokio::test]
async fn what_the_guest_cannot_do_is_a_422_with_its_reason() {
    let harness = Harness::start().await;
    let body = json!({"files": [{"path": "/folder", "content_b64": ""}]});
    let detail = harness
        .post("/v1/sandboxes", body)
        .await
        .problem(422, "not_possible");
    assert!(detail.contains("/folder: is a directory"), "{detail}");
    assert!(harness.cache.sandboxes(None).is_empty());
}

#[tokio::test]
async fn sockets_go_to_whoever_asked_over_the_unix_socket() {
    let harness = Harness::start().await;
    let owner = || *harness.factory.owner.lock().unwrap();
    harness.checkout().await;
    assert_eq!(owner(), None, "the kernel named nobody");
    let asked = request(Method::POST, "/v1/sandboxes").extension(Peer {
        uid: 7,
        gid: Some(8),
    });
    harness
        .send(asked.body(axum::body::Body::empty()).unwrap())
        .await
        .ok(201);
    assert_eq!(owner(), Some(SocketOwner { uid: 7, gid: 8 }));

    let service = Listening::start().await;
    let answer = unix(&service, "POST", "/v1/sandboxes", "").await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let owner = *service.harness.factory.owner.lock().unwrap();
    let own = SocketOwner {
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    };
    assert_eq!(owner, Some(own), "as the kernel says");
}

/// Everything that is logged in this process from now on, at the finest level.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One request over the Unix socket, on a connection of its own.
async fn unix(service: &Listening, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(&service.socket).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: k\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn secrets_are_seen_by_the_guest_alone() {
    let logs = Logs::default();
    let made = logs.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || made.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let service = Listening::start().await;
    let (in_env, in_file) = ("marker-of-env-7f3a", "marker-of-file-9c1d");
    let encoded = BASE64_STANDARD.encode(in_file);
    let body = |hostname: &str, path: &str| {
        let file = json!({"path": path, "content_b64": encoded});
        json!({"hostname": hostname, "env": {"TOKEN": in_env}, "files": [file]}).to_string()
    };
    let mut seen = Vec::new();
    for body in [
        body("job-17", "/etc/job"),
        // The same again, and another under the same key.
        body("job-17", "/etc/job"),
        body("job-18", "/etc/job"),
        // What fails, in each of its ways.
        body("job-17", "/folder"),
        body("refused", "/etc/job"),
        body("no name", "/etc/job"),
        json!({"env": in_env}).to_string(),
        json!({"env": {"TOKEN": [in_env]}}).to_string(),
        json!({"env": {"TOKEN": format!("{in_env}\u{0}")}}).to_string(),
        json!({"files": encoded}).to_string(),
        json!({"files": [{"path": "x", "content_b64": encoded}]}).to_string(),
        json!({"files": [{"path": "/x", "content_b64": [encoded]}]}).to_string(),
        json!({"files": [{"path": "/x", "content_b64": "", "mode": encoded}]}).to_string(),
        body("job-17", "/etc/job") + "x",
    ] {
        seen.push(unix(&service, "POST", "/v1/sandboxes", &body).await);
    }
    assert!(seen[0].starts_with("HTTP/1.1 201") && seen[1].starts_with("HTTP/1.1 201"));
    assert!(seen[2].starts_with("HTTP/1.1 409"), "{}", seen[2]);
    let bound = service.harness.factory.bound.lock().unwrap().clone();
    assert_eq!(bound.env["TOKEN"], in_env, "the guest has it");
    seen.push(format!("{bound:?}"));
    seen.push(format!(
        "{:?}",
        service.harness.factory.records.lock().unwrap()
    ));
    for path in [
        "/v1/sandboxes",
        "/v1/pools",
        "/v1/templates",
        "/metrics",
        "/v1/builds",
    ] {
        seen.push(unix(&service, "GET", path, "").await);
    }
    let logged = String::from_utf8_lossy(&logs.0.lock().unwrap()).into_owned();
    assert!(logged.contains("answered"), "the log is not empty");
    seen.push(logged);
    for text in seen {
        for secret in [in_env, in_file, encoded.as_str()] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}
