//! Requests whose bodies or connections stay open: files, and WebSockets.
//!
//! What always holds: an answer that is an error becomes a [`ClientError::Refused`], whole; dropping what was opened
//! closes its connection.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Builder;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::task::AbortOnDropHandle;

use super::client::{ANSWER_TIMEOUT, Answer, Client, ClientError, broken, refused};
use super::endpoint::Endpoint;
use crate::http::limits::TRANSFER_STALL_TIMEOUT;
use crate::remote::channel::PROTOCOL;

/// How long a transfer may stand still. The service notices first, and says why.
pub(super) const STALL_TIMEOUT: Duration =
    TRANSFER_STALL_TIMEOUT.saturating_add(Duration::from_secs(30));

/// A WebSocket to the service.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A good answer whose body is still to come.
pub(super) struct Opened {
    endpoint: String,
    pub(super) headers: HeaderMap,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl Opened {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = timeout(STALL_TIMEOUT, self.body.frame()).await;
            match frame.map_err(|_| self.silent())? {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    Ok(_) | Err(_) => {}
                },
                Some(Err(error)) => {
                    let reason = format!("the transfer broke off: {error}");
                    return Err(broken(&self.endpoint, reason));
                }
            }
        }
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent {
            endpoint: self.endpoint.clone(),
            after: STALL_TIMEOUT,
        }
    }
}

impl Client {
    /// Sends a request and waits for the head of its answer; the wait has no deadline of its own.
    pub(super) async fn open<B>(&self, request: Builder, body: B) -> Result<Opened, ClientError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (response, connection) = self.exchange_open(request, body).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let (head, body) = response.into_parts();
        Ok(Opened {
            endpoint: self.endpoint.to_string(),
            headers: head.headers,
            body,
            _connection: connection,
        })
    }

    /// Opens a WebSocket with the protocol of streaming commands.
    pub(super) async fn websocket(&self, path: &str) -> Result<Socket, ClientError> {
        let endpoint = self.endpoint.to_string();
        let key = generate_key();
        let request = Request::get(path)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
            .header(SEC_WEBSOCKET_KEY, &key);
        let opening = async {
            let (response, connection) = self.exchange_open(request, Empty::new()).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.refusal(response).await);
            }
            let said = |name| response.headers().get(name).map(|value| value.as_bytes());
            let accept = derive_accept_key(key.as_bytes());
            if said(SEC_WEBSOCKET_ACCEPT) != Some(accept.as_bytes())
                || said(SEC_WEBSOCKET_PROTOCOL) != Some(PROTOCOL.as_bytes())
            {
                return Err(broken(&endpoint, "it opened something else"));
            }
            let upgraded = hyper::upgrade::on(response).await;
            // From here on the connection belongs to the socket.
            drop(connection);
            let io = TokioIo::new(upgraded.map_err(|error| broken(&endpoint, error))?);
            Ok(WebSocketStream::from_raw_socket(io, Role::Client, None).await)
        };
        let silent = |_| ClientError::Silent {
            endpoint: endpoint.clone(),
            after: ANSWER_TIMEOUT,
        };
        timeout(ANSWER_TIMEOUT, opening).await.map_err(silent)?
    }

    /// What the service says no with.
    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let body = timeout(ANSWER_TIMEOUT, response.into_body().collect()).await;
        let endpoint = self.endpoint.to_string();
        match body {
            Ok(Ok(body)) => refused(&Answer {
                endpoint,
                status,
                body: body.to_bytes(),
            }),
            Ok(Err(error)) => broken(&endpoint, error),
            Err(_) => ClientError::Silent {
                endpoint,
                after: ANSWER_TIMEOUT,
            },
        }
    }

    async fn exchange_open<B>(
        &self,
        request: Builder,
        body: B,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), ClientError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match &self.endpoint {
            Endpoint::Tcp(authority) => {
                let stream = self.connected(TcpStream::connect(authority)).await?;
                let request = request.header(HOST, authority);
                self.send(stream, request, body).await
            }
            Endpoint::Unix(socket) => {
                let stream = self.connected_unix(socket).await?;
                let request = request.header(HOST, "localhost");
                self.send(stream, request, body).await
            }
        }
    }

    async fn send<S, B>(
        &self,
        stream: S,
        request: Builder,
        body: B,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let endpoint = self.endpoint.to_string();
        let request = request.body(body);
        let request = request.map_err(|error| broken(&endpoint, error))?;
        let failed = |error: hyper::Error| broken(&endpoint, error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let driving = tokio::spawn(async move {
            // Its errors come out of the answer or the body.
            let _ = connection.with_upgrades().await;
        });
        let connection = AbortOnDropHandle::new(driving);
        let response = sender.send_request(request).await.map_err(failed)?;
        Ok((response, connection))
    }
}
