//! Files in and out.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use vmint_api::http::Origin;
use vmint_cache::{FileOwner, WriteOptions};

use crate::listeners::Listening;
use crate::support::{Harness, Reply, SOON, names_in};

async fn put(harness: &Harness, id: &str, query: &str, body: impl Into<Body>) -> Reply {
    let request = Request::put(format!("/v1/sandboxes/{id}/files?{query}"));
    let request = request.extension(Origin::Unix).body(body.into());
    harness.send(request.unwrap()).await
}

async fn get(harness: &Harness, id: &str, query: &str) -> Reply {
    harness
        .get(&format!("/v1/sandboxes/{id}/files?{query}"))
        .await
}

#[tokio::test]
async fn a_file_goes_in_and_comes_out_as_it_was() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(300_001).collect();
    let reply = put(&harness, &id, "path=/a/b/c.bin&mode=0750", bytes.clone()).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (204, ""));
    let reply = get(&harness, &id, "path=/a/b/c.bin").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-vmint-mode"), "0750");
    assert_eq!(reply.header("content-length"), "300001");
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    assert!(reply.body == bytes);

    assert_eq!(put(&harness, &id, "path=/empty", "").await.status, 204);
    let reply = get(&harness, &id, "path=/empty").await;
    assert_eq!(
        (reply.header("x-vmint-mode"), reply.body.len()),
        ("0644", 0)
    );
    let head = format!("/v1/sandboxes/{id}/files?path=/a/b/c.bin");
    let reply = harness.call(Method::HEAD, &head).await;
    assert_eq!(reply.header("content-length"), "300001");
}

#[tokio::test]
async fn what_is_not_said_of_a_stored_file_is_left_to_the_guest() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let owner = |uid, gid| Some(FileOwner { uid, gid });
    for (query, mode, owner) in [
        ("path=/x", None, None),
        ("path=/x&mode=0600", Some(0o600), None),
        ("path=/x&owner=1000", None, owner(1000, None)),
        ("path=/x&owner=0:7&mode=7", Some(0o7), owner(0, Some(7))),
    ] {
        assert_eq!(put(&harness, &id, query, "x").await.status, 204, "{query}");
        let stored_as = *harness.factory.guests.stored_as.lock().unwrap();
        assert_eq!(stored_as, WriteOptions { mode, owner }, "{query}");
    }
}

#[tokio::test]
async fn a_file_whose_size_is_not_known_comes_in_pieces_until_its_end() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let guests = &service.harness.factory.guests;
    std::fs::create_dir(guests.path("/sys")).unwrap();
    std::fs::write(guests.path("/sys/size"), "42\n").unwrap();
    let mut stream = connected(&service).await;
    let head = format!(
        "GET /v1/sandboxes/{id}/files?path=/sys/size HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .expect("it ends")
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("content-length"));
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(body, "3\r\n42\n\r\n0\r\n\r\n");
    // Of one that is empty that is known.
    std::fs::write(guests.path("/empty"), "").unwrap();
    let reply = get(&service.harness, &id, "path=/empty").await;
    assert_eq!(reply.header("content-length"), "0");
}

#[tokio::test]
async fn what_the_guest_refuses_is_told_with_its_reason() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    std::fs::create_dir(harness.factory.guests.path("/dir")).unwrap();
    let reply = get(&harness, &id, "path=/nope").await;
    let detail = reply.problem(404, "not_found");
    assert!(detail.contains("/nope") && reply.json()["errno"] == 2);
    let reply = get(&harness, &id, "path=/dir").await;
    reply.problem(422, "not_possible");
    assert_eq!(reply.json()["errno"], 21);
    let reply = put(&harness, &id, "path=/dir", "x").await;
    reply.problem(422, "not_possible");
    let reply = put(&harness, &id, "path=/disk.full", vec![b'x'; 4 << 20]).await;
    let detail = reply.problem(422, "not_possible");
    assert!(detail.contains("space"), "{detail}");
    assert_eq!(reply.json()["errno"], 28);
    get(&harness, "nope", "path=/x")
        .await
        .problem(404, "unknown_sandbox");
    put(&harness, "nope", "path=/x", "x")
        .await
        .problem(404, "unknown_sandbox");
    harness
        .factory
        .guests
        .outdated
        .store(true, Ordering::SeqCst);
    for reply in [
        get(&harness, &id, "path=/x").await,
        put(&harness, &id, "path=/x", "x").await,
    ] {
        let detail = reply.problem(422, "not_possible");
        assert!(detail.contains("hint: release it"), "{detail}");
    }
    assert_eq!(names_in(&harness.factory.guests.path("/")), ["dir"]);
}

#[tokio::test]
async fn parameters_that_cannot_be_are_refused() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let long = format!("path=/{}", "x".repeat(4095));
    for query in [
        "",
        "path=",
        "path=etc/passwd",
        "path=/a%00b",
        "path=/a&path=/b",
        "path=/a&colour=1",
        "path=/a&archive=zip",
        &long,
    ] {
        get(&harness, &id, query)
            .await
            .problem(400, "invalid_request");
        put(&harness, &id, query, "x")
            .await
            .problem(400, "invalid_request");
    }
    for query in [
        "path=/a&mode=8",
        "path=/a&mode=rw",
        "path=/a&mode=10000",
        "path=/a&mode=0644&archive=tar",
        "path=/a&owner=0&archive=tar",
        "path=/a&owner=root",
        "path=/a&owner=",
        "path=/a&owner=1:",
        "path=/a&owner=-1",
        "path=/a&owner=4294967295",
        "path=/a&owner=0&owner=1",
    ] {
        put(&harness, &id, query, "x")
            .await
            .problem(400, "invalid_request");
    }
    get(&harness, &id, "path=/a&mode=0644")
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn a_directory_goes_both_ways_as_a_tar_stream() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let guests = &harness.factory.guests;
    std::fs::create_dir_all(guests.path("/from/sub")).unwrap();
    std::fs::write(guests.path("/from/sub/x"), "hello").unwrap();
    let mode = std::fs::Permissions::from_mode(0o751);
    std::fs::set_permissions(guests.path("/from/sub/x"), mode).unwrap();

    let tar = get(&harness, &id, "path=/from&archive=tar").await;
    assert_eq!(
        (tar.status.as_u16(), tar.header("content-type")),
        (200, "application/x-tar")
    );
    let has_bound_env = guests.has_bound_env.load(Ordering::SeqCst);
    assert!(
        !has_bound_env,
        "the sandbox's PATH is not that of our own helpers"
    );
    let reply = put(&harness, &id, "path=/made/to&archive=tar", tar.body).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    let copy = guests.path("/made/to/sub/x");
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "hello");
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o751);

    get(&harness, &id, "path=/nope&archive=tar")
        .await
        .problem(404, "not_found");
    let detail = get(&harness, &id, "path=/from/sub/x&archive=tar")
        .await
        .problem(422, "not_possible");
    assert!(detail.contains("no directory"), "{detail}");
    put(&harness, &id, "path=/from/sub/x&archive=tar", "")
        .await
        .problem(422, "not_possible");
    let garbage = put(&harness, &id, "path=/g&archive=tar", vec![b'x'; 100_000]).await;
    let detail = garbage.problem(422, "not_possible");
    assert!(detail.contains("tar"), "{detail}");
    // Nothing in a path is a command.
    get(&harness, &id, "path=/$(touch%20/tmp/owned)&archive=tar")
        .await
        .problem(404, "not_found");
}

async fn connected(service: &Listening) -> UnixStream {
    UnixStream::connect(&service.socket).await.unwrap()
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_leaves_no_file() {
    let service = Listening::start().await;
    let harness = &service.harness;
    let id = harness.checkout().await;
    let guests = &harness.factory.guests;
    for length in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        guests.written.store(0, Ordering::SeqCst);
        let mut stream = connected(&service).await;
        let head = format!(
            "PUT /v1/sandboxes/{id}/files?path=/x HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"5\r\nhello\r\n").await.unwrap();
        let some = || guests.written.load(Ordering::SeqCst) >= 5;
        harness.until("the guest has some of it", some).await;
        assert_eq!(names_in(&guests.path("/")), ["x.part"]);
        drop(stream);
        let none = || names_in(&guests.path("/")).is_empty();
        harness.until("nothing is left", none).await;
    }
}

#[tokio::test]
async fn a_file_that_breaks_off_does_not_look_whole() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let path = service.harness.factory.guests.path("/x.breaks");
    std::fs::write(path, vec![b'x'; 1 << 20]).unwrap();
    let mut stream = connected(&service).await;
    let head =
        format!("GET /v1/sandboxes/{id}/files?path=/x.breaks HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is cut");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("content-length: 1048576"));
    assert!(answer.len() < 1 << 20);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_writing() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let mut stream = connected(&service).await;
    let size = 20 << 20;
    let head = format!(
        "PUT /v1/sandboxes/{id}/files?path=/disk.full HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; size]).await.unwrap();
    let mut answer = vec![0; 4096];
    let got = timeout(SOON, stream.read(&mut answer)).await.unwrap();
    let text = String::from_utf8_lossy(&answer[..got.unwrap()]).into_owned();
    assert!(
        text.starts_with("HTTP/1.1 422") && text.contains("not_possible"),
        "{text}"
    );
}

/// Pages of this process, bytes.
fn resident() -> u64 {
    let statm = procfs::process::Process::myself().unwrap().statm().unwrap();
    statm.resident * procfs::page_size()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_does_not_grow_with_a_file() {
    const FILE_BYTES: usize = 256 << 20;
    const PIECE_BYTES: usize = 64 << 10;
    /// Often enough to see a peak, seldom enough to leave a core to the service.
    const LOOK_INTERVAL: Duration = Duration::from_millis(2);
    let service = Listening::start().await;
    let harness = &service.harness;
    let id = harness.checkout().await;
    let guests = harness.factory.guests.clone();
    guests.takes.send_replace(false);
    let before = resident();
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let pieces = (0..FILE_BYTES / PIECE_BYTES).map(move |_| {
        count.fetch_add(PIECE_BYTES, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; PIECE_BYTES])))
    });
    let request = Request::put(format!("/v1/sandboxes/{id}/files?path=/dev/null/x"))
        .header("host", "localhost")
        .body(StreamBody::new(futures::stream::iter(pieces)))
        .unwrap();
    let io = TokioIo::new(connected(&service).await);
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut answer = tokio::spawn(sender.send_request(request));
    let on_its_way = || made.load(Ordering::SeqCst) - guests.written.load(Ordering::SeqCst);
    // As long as the guest takes nothing, only what fits on the way is sent.
    harness
        .until("it is sent", || on_its_way() >= 4 * PIECE_BYTES)
        .await;
    guests.takes.send_replace(true);
    let (mut most, mut most_on_its_way) = (resident(), 0);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let answer = timeout(SOON, async {
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = looks.tick() => {
                    most = most.max(resident());
                    most_on_its_way = most_on_its_way.max(on_its_way());
                }
            }
        }
    })
    .await
    .expect("an answer in time");
    assert_eq!(answer.unwrap().unwrap().status(), 204);
    assert_eq!(guests.written.load(Ordering::SeqCst), FILE_BYTES);
    assert!(most_on_its_way < 16 << 20, "{most_on_its_way} bytes");
    // Other tests run in this process, too.
    let grown = most.saturating_sub(before);
    assert!(grown < FILE_BYTES as u64 / 2, "{grown} bytes more");
    connection.abort();
}

#[tokio::test]
async fn a_body_without_a_length_is_taken_in_pieces() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let pieces = futures::stream::iter(0..100).map(|n| Ok::<_, std::io::Error>(format!("{n},")));
    let reply = put(
        &harness,
        &id,
        "path=/numbers&mode=600",
        Body::from_stream(pieces),
    )
    .await;
    assert_eq!(reply.status, 204);
    let text = std::fs::read_to_string(harness.factory.guests.path("/numbers")).unwrap();
    assert!(text.starts_with("0,1,2,") && text.ends_with(",99,"));
}
