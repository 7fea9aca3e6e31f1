//! Real sockets: what happens on the wire, and when clients misbehave.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use vmint_api::config;
use vmint_api::serve::{Listeners, Server};

use crate::support::Harness;

/// Longer than any answer takes here.
const PATIENCE: Duration = Duration::from_secs(20);
/// Enough files for as many connections as there may be.
const FILES: u64 = 100_000;

/// A service on real sockets.
pub(crate) struct Listening {
    pub(crate) harness: Harness,
    pub(crate) address: String,
    pub(crate) socket: PathBuf,
    server: Server,
    _dir: TempDir,
}

impl Listening {
    pub(crate) async fn start() -> Self {
        Self::start_with_files(FILES).await
    }

    async fn start_with_files(files: u64) -> Self {
        Self::of(Harness::start().await, files, &[]).await
    }

    /// A service that does not serve these users.
    pub(crate) async fn start_closed_to(hypervisors: &[u32]) -> Self {
        Self::of(Harness::start().await, FILES, hypervisors).await
    }

    /// A service on a kernel that does not say who connects over TCP.
    pub(crate) async fn start_without_diag() -> Self {
        Self::with(Harness::start().await, FILES, &[], Listeners::without_diag).await
    }

    /// A service that was started already.
    pub(crate) async fn over(harness: Harness) -> Self {
        Self::of(harness, FILES, &[]).await
    }

    async fn of(harness: Harness, files: u64, hypervisors: &[u32]) -> Self {
        Self::with(harness, files, hypervisors, |listeners| listeners).await
    }

    async fn with(
        harness: Harness,
        files: u64,
        hypervisors: &[u32],
        change: impl FnOnce(Listeners) -> Listeners,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listen = Some(([127, 0, 0, 1], 0).into());
        let server = config::Server {
            listen,
            socket: socket.clone(),
            socket_mode: 0o600,
            socket_group: None,
        };
        let listeners = change(Listeners::bind(&server).await.unwrap());
        let address = listeners.urls()[0].trim_start_matches("http://").to_owned();
        let server = Server::start(listeners, &harness.router, files, hypervisors);
        Self {
            harness,
            address,
            socket,
            server,
            _dir: dir,
        }
    }

    /// Sends a request over a new connection of a user, where it is another one than this process's, and reads until
    /// the service closes.
    pub(crate) async fn ask_as(&self, uid: Option<u32>, request: String) -> String {
        self.ask_at(self.address.clone(), uid, request).await
    }

    /// The same from an IPv6 socket that speaks IPv4, as every JVM has.
    pub(crate) async fn ask_dual_stack(&self, request: String) -> String {
        let (_, port) = self.address.split_once(':').unwrap();
        let address = format!("[::ffff:127.0.0.1]:{port}");
        self.ask_at(address, None, request).await
    }

    async fn ask_at(&self, address: String, uid: Option<u32>, request: String) -> String {
        let asking = tokio::task::spawn_blocking(move || {
            // A thread of its own, which ends: its sockets are that user's.
            let thread = std::thread::spawn(move || {
                if let Some(uid) = uid {
                    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(uid));
                }
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                let mut answer = Vec::new();
                // One that is not served may be reset.
                let _ = stream.write_all(request.as_bytes());
                let _ = stream.read_to_end(&mut answer);
                String::from_utf8(answer).unwrap()
            });
            thread.join().unwrap()
        });
        let answer = timeout(PATIENCE, asking).await;
        answer.expect("an answer in time").unwrap()
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }
}

/// Reads until the answer's body, which has no length here that would be longer, has come.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = async {
        while !is_whole(&answer) {
            if stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer in time");
    String::from_utf8(answer).unwrap()
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| body.len() >= length.parse::<usize>().unwrap())
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn both_listeners_answer_and_keep_connections() {
    let service = Listening::start().await;
    let mut tcp = service.tcp().await;
    let mut unix = UnixStream::connect(&service.socket).await.unwrap();
    for _ in 0..3 {
        tcp.write_all(HEALTH).await.unwrap();
        assert!(read_answer(&mut tcp).await.starts_with("HTTP/1.1 200"));
        unix.write_all(b"GET /healthz HTTP/1.1\r\nHost: anything\r\n\r\n")
            .await
            .unwrap();
        assert!(read_answer(&mut unix).await.starts_with("HTTP/1.1 200"));
    }
    for hosts in [
        "Host: example.org",
        "Host: a@localhost",
        "Host: localhost\r\nHost: localhost",
    ] {
        tcp.write_all(format!("GET /v1/pools HTTP/1.1\r\n{hosts}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert!(
            read_answer(&mut tcp).await.contains("invalid_request"),
            "{hosts}"
        );
    }
}

#[tokio::test]
async fn a_body_that_would_be_too_large_is_refused_before_it_comes() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    for path in ["/v1/sandboxes", &format!("/v1/sandboxes/{id}/exec")] {
        let mut stream = UnixStream::connect(&service.socket).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = timeout(Duration::from_secs(5), read_answer(&mut stream)).await;
        let answer = answer.expect("at once, and not after the body's own time");
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_while_its_checkout_waits_is_noticed() {
    let service = Listening::start().await;
    let harness = &service.harness;
    harness.factory.launches.send_replace(false);
    let (_first, _second) = (harness.checkout().await, harness.checkout().await);
    let waiters = || harness.cache.pool("default").unwrap().waiters;
    let body = r#"{"wait_ms": 600000}"#;
    let head = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = UnixStream::connect(&service.socket).await.unwrap();
    stream.write_all((head + body).as_bytes()).await.unwrap();
    harness.until("it waits", || waiters() == 1).await;
    drop(stream);
    harness.until("it is gone", || waiters() == 0).await;
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_closed() {
    let service = Listening::start().await;
    let huge = [
        b"GET / HTTP/1.1\r\nX: ".to_vec(),
        vec![b'x'; 200_000],
        b"\r\n\r\n".to_vec(),
    ]
    .concat();
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n".to_vec(),
        b"GARBAGE\r\n\r\n".to_vec(),
        huge,
    ] {
        let mut stream = service.tcp().await;
        let _ = stream.write_all(&garbage).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the connection is closed");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{answer:?}"
        );
    }
    let mut stream = service.tcp().await;
    stream.write_all(HEALTH).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_although_the_client_goes_on_writing() {
    let service = Listening::start().await;
    let mut stream = service.tcp().await;
    let size = 20 << 20;
    let head = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; size]).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("too_large"),
        "{answer}"
    );
}

#[tokio::test]
async fn clients_that_never_finish_a_request_do_not_hold_the_others() {
    // Eight files: two connections for each listener.
    let service = Listening::start_with_files(8).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = service.tcp().await;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: loc")
            .await
            .unwrap();
        slow.push(stream);
    }
    let mut unix = UnixStream::connect(&service.socket).await.unwrap();
    unix.write_all(HEALTH).await.unwrap();
    assert!(
        read_answer(&mut unix).await.starts_with("HTTP/1.1 200"),
        "the other listener has room of its own"
    );
    let mut waits = service.tcp().await;
    waits.write_all(HEALTH).await.unwrap();
    drop(slow.pop());
    assert!(
        read_answer(&mut waits).await.starts_with("HTTP/1.1 200"),
        "there is room again"
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_leaves_the_queue() {
    let service = Listening::start().await;
    let harness = &service.harness;
    harness.factory.launches.send_replace(false);
    let (_first, _second) = (harness.checkout().await, harness.checkout().await);
    let mut stream = service.tcp().await;
    stream
        .write_all(b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    harness
        .until("it waits", || {
            harness.cache.pool("default").unwrap().waiters == 1
        })
        .await;
    drop(stream);
    harness
        .until("it left", || {
            harness.cache.pool("default").unwrap().waiters == 0
        })
        .await;
}

#[tokio::test]
async fn a_close_lets_the_last_answer_out_and_removes_the_socket() {
    let service = Listening::start().await;
    let harness = &service.harness;
    harness.factory.launches.send_replace(false);
    let (_first, _second) = (harness.checkout().await, harness.checkout().await);
    let mut waits = service.tcp().await;
    waits
        .write_all(b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    harness
        .until("it waits", || {
            harness.cache.pool("default").unwrap().waiters == 1
        })
        .await;
    let mut idle = service.tcp().await;
    idle.write_all(HEALTH).await.unwrap();
    read_answer(&mut idle).await;

    harness.cache.begin_stop();
    timeout(PATIENCE, service.server.close())
        .await
        .expect("a close in time");
    let answer = read_answer(&mut waits).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("shutting_down"),
        "{answer}"
    );
    assert_eq!(
        idle.read(&mut [0; 1]).await.unwrap(),
        0,
        "an idle connection is closed"
    );
    assert!(!Path::new(&service.socket).exists());
    assert!(TcpStream::connect(&service.address).await.is_err());
}
