//! Streams against a scripted guest at real sockets.

mod exec;
mod file;
mod flow;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::StreamLink;
use super::frame::{self, HEADER_BYTES, Header, Kind};
use crate::guest::agent_tests::{connected, port, request};
use crate::guest::{Agent, AgentKind, GuestError, StreamRequest};

const LONG: Duration = Duration::from_secs(30);

/// The guest's ends.
struct Guest {
    agent: UnixStream,
    stream: UnixStream,
    _folder: tempfile::TempDir,
}

/// A frame that the host has written.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    stream: u16,
    kind: Kind,
    channel: u8,
    payload: Vec<u8>,
}

/// A connection that was synchronized after `left_over`, and the agent that it depends on.
async fn dialled(left_over: &[u8]) -> anyhow::Result<(StreamLink, Guest, Agent)> {
    let port = port()?;
    let (agent, mut agent_end) = connected(&port, AgentKind::VmintAgent, b"").await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("stream.sock");
    let listener = UnixListener::bind(&path)?;
    let dial = tokio::spawn({
        let agent = agent.clone();
        async move { StreamLink::dial(&path, &agent).await }
    });
    let (mut stream, _) = listener.accept().await?;
    let reset = request(&mut agent_end).await?;
    anyhow::ensure!(reset["execute"] == "vmint-stream-reset", "{reset}");
    let answer = json!({"return": {}, "id": reset["id"]});
    agent_end
        .write_all(format!("{answer}\n").as_bytes())
        .await?;
    let mut mark = [0; 24];
    stream.read_exact(&mut mark).await?;
    let nonce: String = mark[HEADER_BYTES..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    anyhow::ensure!(reset["arguments"]["nonce"] == *nonce, "{reset}");
    stream.write_all(left_over).await?;
    stream.write_all(&mark).await?;
    let guest = Guest {
        agent: agent_end,
        stream,
        _folder: folder,
    };
    Ok((dial.await??, guest, agent))
}

impl Guest {
    async fn frame(&mut self) -> anyhow::Result<Frame> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).await?;
        let header = Header::read(header).ok_or_else(|| anyhow::anyhow!("too long"))?;
        let mut payload = vec![0; header.length];
        self.stream.read_exact(&mut payload).await?;
        let kind = header.kind.ok_or_else(|| anyhow::anyhow!("no kind"))?;
        Ok(Frame {
            stream: header.stream,
            kind,
            channel: header.channel,
            payload,
        })
    }

    /// The next frame, which opens a stream.
    async fn opened(&mut self) -> anyhow::Result<(u16, Value)> {
        let frame = self.frame().await?;
        anyhow::ensure!(frame.kind == Kind::Open, "{frame:?}");
        Ok((frame.stream, serde_json::from_slice(&frame.payload)?))
    }

    async fn say(
        &mut self,
        stream: u16,
        kind: Kind,
        channel: u8,
        payload: &[u8],
    ) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, stream, kind, channel, payload);
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn result(&mut self, stream: u16, result: &Value) -> anyhow::Result<()> {
        let result = result.to_string();
        self.say(stream, Kind::Result, 0, result.as_bytes()).await
    }

    async fn exited(&mut self, stream: u16) -> anyhow::Result<()> {
        let end = json!({"exit_code": 0, "signal": null, "timed_out": false, "spawn_error": null});
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
