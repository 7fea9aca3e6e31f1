//! One request to the service, over its Unix socket.

use std::path::Path;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// How long an answer may take: longer than anything that is asked for waits.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) key: Option<String>,
}

impl Ask {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::of(Method::GET, path)
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self::of(Method::POST, path)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::of(Method::DELETE, path)
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn of(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
            key: None,
        }
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Reply {
    /// The code of a problem, or nothing.
    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missed {
    /// Nobody listens.
    #[error("nobody listens: {0}")]
    Down(std::io::Error),
    /// It began and did not come to an end.
    #[error("cut off: {0}")]
    CutOff(String),
    /// Nothing came.
    #[error("no answer within {ANSWER_DEADLINE:?}")]
    Late,
}

/// Asks once, over a connection of its own.
pub(super) async fn call(socket: &Path, ask: &Ask) -> Result<Reply, Missed> {
    let exchange = tokio::time::timeout(ANSWER_DEADLINE, exchange(socket, ask));
    exchange.await.map_err(|_| Missed::Late)?
}

async fn exchange(socket: &Path, ask: &Ask) -> Result<Reply, Missed> {
    fn cut(error: impl std::fmt::Display) -> Missed {
        Missed::CutOff(error.to_string())
    }
    let stream = UnixStream::connect(socket).await.map_err(Missed::Down)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(cut)?;
    // How it ends is told to the request, too.
    let driven = tokio::spawn(connection);
    let request = request(ask).map_err(cut)?;
    let response = sender.send_request(request).await.map_err(cut)?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(cut)?;
    let bytes = bytes.to_bytes();
    driven.abort();
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).map_err(cut)?
    };
    Ok(Reply { status, body })
}

fn request(ask: &Ask) -> http::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(&ask.method)
        .uri(&ask.path)
        .header("host", "localhost");
    if let Some(key) = &ask.key {
        request = request.header("idempotency-key", key);
    }
    match &ask.body {
        Some(body) => request
            .header("content-type", "application/json")
            .body(Full::from(body.to_string())),
        None => request.body(Full::default()),
    }
}
