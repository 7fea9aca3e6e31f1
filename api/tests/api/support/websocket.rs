//! A client of the WebSocket that streams commands.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::SOON;
use crate::listeners::Listening;

pub(crate) const PROTOCOL: &str = "v5.channel.k8s.io";

/// A client of a WebSocket.
pub(crate) struct Client(pub(crate) WebSocketStream<TcpStream>);

/// Everything a client got until the close frame.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Got {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: Value,
    pub(crate) close: u16,
}

impl Client {
    pub(crate) async fn open(
        service: &Listening,
        id: &str,
        query: &str,
    ) -> Result<Self, Box<Error>> {
        Self::open_as(service, id, query, Some(PROTOCOL)).await
    }

    pub(crate) async fn open_as(
        service: &Listening,
        id: &str,
        query: &str,
        protocol: Option<&str>,
    ) -> Result<Self, Box<Error>> {
        let path = format!("/v1/sandboxes/{id}/exec?{query}");
        Self::open_at(service, &path, protocol).await
    }

    pub(crate) async fn open_at(
        service: &Listening,
        path: &str,
        protocol: Option<&str>,
    ) -> Result<Self, Box<Error>> {
        let url = format!("ws://{}{path}", service.address);
        let mut request = url.into_client_request().unwrap();
        if let Some(protocol) = protocol {
            let headers = request.headers_mut();
            headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
        }
        let stream = TcpStream::connect(&service.address).await.unwrap();
        let (client, answer) = timeout(SOON, client_async(request, stream))
            .await
            .expect("an answer in time")
            .map_err(Box::new)?;
        assert_eq!(answer.headers()["sec-websocket-protocol"], PROTOCOL);
        Ok(Self(client))
    }

    pub(crate) async fn send(&mut self, message: &[u8]) {
        let message = Message::Binary(Bytes::copy_from_slice(message));
        self.0.send(message).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Message {
        timeout(SOON, self.0.next())
            .await
            .expect("a message in time")
            .expect("no end")
            .expect("no error")
    }

    /// The next bytes of standard output.
    pub(crate) async fn stdout(&mut self) -> String {
        loop {
            match self.next().await {
                Message::Binary(bytes) if bytes.len() > 1 => {
                    assert_eq!(bytes[0], 1, "{bytes:?}");
                    return String::from_utf8(bytes[1..].to_vec()).unwrap();
                }
                Message::Binary(_) | Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn rest(mut self) -> Got {
        let mut got = Got::default();
        loop {
            match self.next().await {
                Message::Binary(bytes) => {
                    assert_eq!(got.status, Value::Null, "nothing comes after the status");
                    let text = String::from_utf8(bytes[1..].to_vec()).unwrap();
                    match bytes[0] {
                        1 => got.stdout += &text,
                        2 => got.stderr += &text,
                        3 if text.is_empty() => {}
                        3 => got.status = serde_json::from_str(&text).unwrap(),
                        channel => panic!("channel {channel}"),
                    }
                }
                Message::Close(frame) => {
                    got.close = frame.map_or(0, |frame| frame.code.into());
                    // The answer to the close goes out with the next read.
                    let end = timeout(SOON, self.0.next()).await.expect("an end in time");
                    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
                    return got;
                }
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
