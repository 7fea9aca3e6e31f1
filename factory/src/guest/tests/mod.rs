//! The guest's agent, scripted, at a real socket.

mod agent;
mod command;
mod dial;
mod file;
mod flow;
mod process;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;
use vmint_guest_protocol::frame::{self, CONTROL, Found, Kind, Mark, Parsed, Seal};
use vmint_guest_protocol::message::{self, OPEN_MAX_BYTES, Parts, REQUEST_MAX_BYTES};

use super::{Agent, GuestError, StreamRequest};

pub(super) const LONG: Duration = Duration::from_secs(30);

/// A listening socket, and the folder that it is in.
pub(super) struct Port {
    _folder: tempfile::TempDir,
    path: PathBuf,
    listener: UnixListener,
}

pub(super) fn port() -> std::io::Result<Port> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path)?;
    Ok(Port {
        _folder: folder,
        path,
        listener,
    })
}

/// A port that is never closed in the guest.
pub(super) fn never_lost() -> watch::Receiver<u64> {
    watch::channel(0).1
}

impl Port {
    /// Dials it as the host does.
    fn dial(
        &self,
        losses: watch::Receiver<u64>,
    ) -> tokio::task::JoinHandle<Result<Agent, GuestError>> {
        let path = self.path.clone();
        tokio::spawn(async move { Agent::connect(&path, &losses, Instant::now() + LONG).await })
    }

    /// The guest's side of the next connection, on which nothing was said.
    async fn accept(&self) -> anyhow::Result<Guest> {
        let (socket, _) = self.listener.accept().await?;
        Ok(Guest {
            socket,
            seal: None,
            incoming: Vec::new(),
            parts: Parts::default(),
        })
    }
}

/// A connection that has begun after the guest had said `left_over`.
pub(super) async fn connected_after(left_over: &[u8]) -> anyhow::Result<(Agent, Guest)> {
    let port = port()?;
    let mut dialling = port.dial(never_lost());
    let mut guest = port.accept().await?;
    let mark = guest.marked().await?;
    guest.write(left_over).await?;
    guest.write(&mark.bytes()).await?;
    loop {
        // On a busy host the answer is late, and there are other marks by then.
        tokio::select! {
            biased;
            agent = &mut dialling => return Ok((agent??, guest)),
            mark = guest.marked() => guest.write(&mark?.bytes()).await?,
        }
    }
}

pub(super) async fn connected() -> anyhow::Result<(Agent, Guest)> {
    connected_after(b"").await
}

/// The guest's side of a connection.
pub(super) struct Guest {
    socket: UnixStream,
    /// None while it is deaf.
    seal: Option<Seal>,
    incoming: Vec<u8>,
    parts: Parts,
}

/// A frame that the host has written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    stream: u16,
    kind: Kind,
    channel: u8,
    payload: Vec<u8>,
}

enum Said {
    Mark(Mark),
    Frame(Frame),
}

impl Guest {
    /// The next thing that the host says, understood as an agent does.
    async fn said(&mut self) -> anyhow::Result<Said> {
        loop {
            let parsed = match &self.seal {
                Some(seal) => frame::parse(&self.incoming, seal),
                None => Parsed::Broken,
            };
            let (said, size) = match parsed {
                Parsed::Frame(frame, size) => {
                    let kind = frame.kind.ok_or_else(|| anyhow::anyhow!("no kind"))?;
                    let frame = Frame {
                        stream: frame.stream,
                        kind,
                        channel: frame.channel,
                        payload: frame.payload.to_vec(),
                    };
                    (Some(Said::Frame(frame)), size)
                }
                Parsed::Mark(mark, size) => (Some(Said::Mark(mark)), size),
                Parsed::Broken => match frame::find_mark(&self.incoming) {
                    Found::At(mark, size) => (Some(Said::Mark(mark)), size),
                    Found::NotBefore(size) => {
                        self.seal = None;
                        (None, size)
                    }
                },
                Parsed::Partial => (None, 0),
            };
            self.incoming.drain(..size);
            match said {
                Some(Said::Mark(mark)) => {
                    self.seal = Some(mark.seal());
                    return Ok(Said::Mark(mark));
                }
                Some(said) => return Ok(said),
                None => {
                    let count = self.socket.read_buf(&mut self.incoming).await?;
                    anyhow::ensure!(count > 0, "the host has closed the connection");
                }
            }
        }
    }

    /// The next mark.
    async fn marked(&mut self) -> anyhow::Result<Mark> {
        match self.said().await? {
            Said::Mark(mark) => Ok(mark),
            Said::Frame(frame) => anyhow::bail!("{frame:?}"),
        }
    }

    async fn frame(&mut self) -> anyhow::Result<Frame> {
        match self.said().await? {
            Said::Frame(frame) => Ok(frame),
            Said::Mark(_) => anyhow::bail!("another connection"),
        }
    }

    /// The next frames, which open a stream.
    async fn opened(&mut self) -> anyhow::Result<(u16, Value)> {
        let mut parts = Parts::default();
        loop {
            let frame = self.frame().await?;
            anyhow::ensure!(frame.kind == Kind::Open, "{frame:?}");
            let whole = parts.take(frame.channel, &frame.payload, OPEN_MAX_BYTES)?;
            if let Some(open) = whole {
                return Ok((frame.stream, serde_json::from_slice(open)?));
            }
        }
    }

    /// The next request.
    pub(super) async fn request(&mut self) -> anyhow::Result<Value> {
        loop {
            let frame = self.frame().await?;
            let (stream, kind) = (frame.stream, frame.kind);
            anyhow::ensure!((stream, kind) == (CONTROL, Kind::Message), "{frame:?}");
            let whole = self
                .parts
                .take(frame.channel, &frame.payload, REQUEST_MAX_BYTES)?;
            if let Some(message) = whole {
                return Ok(serde_json::from_slice(message)?);
            }
        }
    }

    pub(super) async fn answer(&mut self, request: &Value, answer: &Value) -> anyhow::Result<()> {
        self.reply(&json!({"id": request["id"], "return": answer}))
            .await
    }

    async fn refuse(&mut self, request: &Value, code: &str, message: &str) -> anyhow::Result<()> {
        let error = json!({"code": code, "errno": 0, "message": message});
        self.reply(&json!({"id": request["id"], "error": error}))
            .await
    }

    async fn reply(&mut self, reply: &Value) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        message::write(&mut bytes, &self.sealed(), reply.to_string().as_bytes());
        self.write(&bytes).await
    }

    fn sealed(&self) -> Seal {
        self.seal.unwrap_or_default()
    }

    async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.socket.write_all(bytes).await?)
    }

    fn bytes(&self, stream: u16, kind: Kind, channel: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &self.sealed(), stream, kind, channel, payload);
        bytes
    }

    async fn say(
        &mut self,
        stream: u16,
        kind: Kind,
        channel: u8,
        payload: &[u8],
    ) -> anyhow::Result<()> {
        let bytes = self.bytes(stream, kind, channel, payload);
        self.write(&bytes).await
    }

    async fn result(&mut self, stream: u16, result: &Value) -> anyhow::Result<()> {
        let result = result.to_string();
        self.say(stream, Kind::Result, 0, result.as_bytes()).await
    }

    async fn exited(&mut self, stream: u16) -> anyhow::Result<()> {
        let end = json!({"exit_code": 0, "signal": null, "ended_by": "exit"});
        self.result(stream, &end).await
    }
}

fn command() -> StreamRequest {
    StreamRequest {
        argv: vec!["cat".into()],
        stdin: true,
        timeout: Some(LONG),
        ..StreamRequest::default()
    }
}
