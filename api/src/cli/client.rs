//! The client: one connection for each request, over TCP or a Unix socket.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::endpoint::Endpoint;
use super::error::CliError;
use super::peer::SocketPath;
use crate::http::problem::ProblemBody;

/// How long the service may take to accept a connection on the same host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take that is not a wait by itself.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no good answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody there.
    #[error(
        "no service answers at {endpoint}: {source}\n    mend: start it with `vmint serve`, or say where it is with --url or VMINT_URL"
    )]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody else there.
    #[error(
        "nothing was sent to the process that listens at {endpoint}: {reason}\n    hint: if that service is the one you mean, name its socket with --url or VMINT_URL, in a directory that only its owner can write to"
    )]
    Foreign {
        /// Where.
        endpoint: String,
        /// Who.
        reason: String,
    },
    /// No answer in time.
    #[error("the service at {endpoint} did not answer within {} s", after.as_secs())]
    Silent {
        /// Where.
        endpoint: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// What answers is no vmint.
    #[error("the answer of {endpoint} is broken: {reason}")]
    Broken {
        /// Where.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// A connection that should have stayed ended.
    #[error("the connection to the service was lost {reason}")]
    Lost {
        /// When, and why.
        reason: String,
    },
    /// The service said no.
    #[error("{0}")]
    Refused(Refusal),
}

/// What the service said no with.
#[derive(Debug, Error)]
#[error("{title} ({code}): {detail}")]
pub struct Refusal {
    /// The stable code.
    pub code: String,
    /// The words that go with the code.
    pub title: String,
    /// What happened this time.
    pub detail: String,
    /// With `exec_failed`: the guest kernel's error number.
    pub errno: Option<i32>,
    /// All of it, as it came.
    pub problem: Value,
}

/// An answer that is no error.
pub(super) struct Answer {
    pub(super) endpoint: String,
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as one of the API's types.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        serde_json::from_slice(&self.body).map_err(|error| broken(&self.endpoint, error).into())
    }
}

/// An answer whose body has not come yet, and the connection that it comes through.
struct Begun {
    response: Response<Incoming>,
    _connection: AbortOnDropHandle<hyper::Result<()>>,
}

/// Speaks to one service.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
}

impl Client {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// An answer that did not come.
    pub(super) fn silent(&self, after: Duration) -> ClientError {
        ClientError::Silent {
            endpoint: self.endpoint.to_string(),
            after,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::GET, path, None, ANSWER_TIMEOUT).await
    }

    pub(super) async fn post(
        &self,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, ClientError> {
        self.call(Method::POST, path, body, ANSWER_TIMEOUT).await
    }

    /// One request and its answer; an error status is a [`ClientError::Refused`].
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        deadline: Duration,
    ) -> Result<Answer, ClientError> {
        let exchange = async {
            let begun = self.begin(method, path, body).await?;
            self.collect(begun).await
        };
        let answer = timeout(deadline, exchange)
            .await
            .map_err(|_| self.silent(deadline))??;
        let status = answer.status;
        if status.is_success() {
            Ok(answer)
        } else {
            Err(refused(&answer))
        }
    }

    /// A GET whose answer never ends by itself: `each` gets its pieces as they come. Waiting for the next one has no
    /// deadline, since the service says when there is nothing more to come.
    pub(super) async fn follow(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let begun = timeout(ANSWER_TIMEOUT, self.begin(Method::GET, path, None)).await;
        let mut begun = begun.map_err(|_| self.silent(ANSWER_TIMEOUT))??;
        if !begun.response.status().is_success() {
            return Err(refused(&self.collect(begun).await?).into());
        }
        let endpoint = self.endpoint.to_string();
        while let Some(frame) = begun.response.frame().await {
            let frame = frame.map_err(|error| broken(&endpoint, error))?;
            if let Some(bytes) = frame.data_ref() {
                each(bytes)?;
            }
        }
        Ok(())
    }

    /// Connects and sends a request; answered when the head of the answer has come.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Begun, ClientError> {
        match &self.endpoint {
            Endpoint::Tcp(authority) => {
                let stream = self.connected(TcpStream::connect(authority)).await?;
                self.exchange(stream, authority, method, path, body).await
            }
            Endpoint::Unix(socket) => {
                let stream = self.connected_unix(socket).await?;
                self.exchange(stream, "localhost", method, path, body).await
            }
        }
    }

    /// The rest of an answer.
    async fn collect(&self, begun: Begun) -> Result<Answer, ClientError> {
        let endpoint = self.endpoint.to_string();
        let status = begun.response.status();
        let body = begun.response.into_body().collect().await;
        let body = body.map_err(|error| broken(&endpoint, error))?.to_bytes();
        Ok(Answer {
            endpoint,
            status,
            body,
        })
    }

    pub(super) async fn connected<S>(
        &self,
        connecting: impl Future<Output = io::Result<S>>,
    ) -> Result<S, ClientError> {
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ClientError::Unreachable {
                endpoint: self.endpoint.to_string(),
                source,
            })
    }

    /// Connects to a Unix socket on which somebody answers who is to be trusted with what is said.
    pub(super) async fn connected_unix(
        &self,
        socket: &SocketPath,
    ) -> Result<UnixStream, ClientError> {
        let stream = self.connected(UnixStream::connect(&socket.path)).await?;
        let endpoint = || self.endpoint.to_string();
        match socket.distrust(&stream) {
            Ok(None) => Ok(stream),
            Ok(Some(reason)) => Err(ClientError::Foreign {
                endpoint: endpoint(),
                reason,
            }),
            Err(source) => Err(ClientError::Unreachable {
                endpoint: endpoint(),
                source,
            }),
        }
    }

    async fn exchange<S>(
        &self,
        stream: S,
        host: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Begun, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let endpoint = self.endpoint.to_string();
        let failed = |error: hyper::Error| broken(&endpoint, error);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(
            body.map(|json| Bytes::from(json.to_string()))
                .unwrap_or_default(),
        );
        let request = request
            .body(body)
            .map_err(|error| broken(&endpoint, error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(failed)?;
        Ok(Begun {
            response,
            _connection: connection,
        })
    }
}

pub(super) fn broken(endpoint: &str, error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken {
        endpoint: endpoint.to_owned(),
        reason: error.to_string(),
    }
}

pub(super) fn refused(answer: &Answer) -> ClientError {
    let problem = serde_json::from_slice::<Value>(&answer.body);
    let said = problem.and_then(|problem| {
        let body = ProblemBody::deserialize(&problem)?;
        Ok((body, problem))
    });
    match said {
        Ok((body, problem)) => ClientError::Refused(Refusal {
            code: body.code,
            title: body.title,
            detail: body.detail,
            errno: body.errno,
            problem,
        }),
        Err(_) => broken(
            &answer.endpoint,
            format!("status {} without a problem", answer.status),
        ),
    }
}
