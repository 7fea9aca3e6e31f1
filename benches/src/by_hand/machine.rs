//! A clone by hand that runs: requests, commands and files over its agent's port.

use anyhow::Context;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;
use vmint_guest_protocol::frame::{
    self, CONTROL, FRAME_MAX_BYTES, Found, Kind, Mark, PAYLOAD_MAX_BYTES, Parsed, Seal,
};
use vmint_guest_protocol::message::{self, Parts, REPLY_MAX_BYTES};
use vmint_guest_protocol::{WINDOW_BYTES, channel};

/// How much credit is given back at a time.
const PORTION_BYTES: u32 = WINDOW_BYTES / 2;
/// The one stream that is ever open.
const STREAM: u16 = 1;
/// How the connection begins: any 16 bytes would do.
const NONCE: [u8; 16] = [7; 16];

/// It ends when it is dropped.
pub(crate) struct Machine {
    pub(super) qemu: Child,
    pub(super) port: Port,
}

/// A connection to the agent's port.
pub(super) struct Port {
    socket: UnixStream,
    seal: Seal,
    incoming: Vec<u8>,
    /// Where the next frame begins in `incoming`.
    taken: usize,
}

/// A frame of the guest.
struct Heard {
    kind: Option<Kind>,
    channel: u8,
    payload: Vec<u8>,
}

impl Port {
    /// Dials it. Nothing has used this port in the clone before: the guest is not in the middle of a frame.
    pub(super) async fn dial(path: &std::path::Path) -> anyhow::Result<Self> {
        let mut socket = UnixStream::connect(path).await?;
        let mark = Mark::own(NONCE);
        socket.write_all(&mark.bytes()).await?;
        let mut incoming = Vec::with_capacity(2 * FRAME_MAX_BYTES);
        loop {
            match frame::find_mark(&incoming) {
                Found::At(said, taken) if said.nonce == NONCE => {
                    let seal = mark.seal();
                    return Ok(Self {
                        socket,
                        seal,
                        incoming,
                        taken,
                    });
                }
                Found::At(_, end) | Found::NotBefore(end) => drop(incoming.drain(..end)),
            }
            let count = socket.read_buf(&mut incoming).await?;
            anyhow::ensure!(count > 0, "the connection was closed");
        }
    }

    /// Asks for something, and waits for the answer.
    pub(super) async fn ask(&mut self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        let request = json!({"id": 1, "execute": name, "arguments": arguments}).to_string();
        let mut bytes = Vec::new();
        message::write(&mut bytes, &self.seal, request.as_bytes());
        self.socket.write_all(&bytes).await?;
        let mut parts = Parts::default();
        loop {
            let heard = self.hear().await?;
            if heard.kind != Some(Kind::Message) {
                continue;
            }
            let whole = parts.take(heard.channel, &heard.payload, REPLY_MAX_BYTES)?;
            if let Some(reply) = whole {
                let mut reply: Value = serde_json::from_slice(reply)?;
                anyhow::ensure!(reply.get("error").is_none(), "{name}: {reply}");
                return Ok(reply["return"].take());
            }
        }
    }

    async fn say(&mut self, kind: Kind, channel: u8, payload: &[u8]) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &self.seal, STREAM, kind, channel, payload);
        Ok(self.socket.write_all(&bytes).await?)
    }

    async fn open(&mut self, object: Value) -> anyhow::Result<()> {
        self.say(Kind::Open, 0, object.to_string().as_bytes()).await
    }

    /// The next frame.
    async fn hear(&mut self) -> anyhow::Result<Heard> {
        loop {
            match frame::parse(&self.incoming[self.taken..], &self.seal) {
                Parsed::Frame(frame, size) => {
                    anyhow::ensure!([CONTROL, STREAM].contains(&frame.stream), "{frame:?}");
                    let heard = Heard {
                        kind: frame.kind,
                        channel: frame.channel,
                        payload: frame.payload.to_vec(),
                    };
                    self.taken += size;
                    return Ok(heard);
                }
                Parsed::Partial => {}
                other => anyhow::bail!("{other:?}"),
            }
            self.incoming.drain(..self.taken);
            self.taken = 0;
            let count = self.socket.read_buf(&mut self.incoming).await?;
            anyhow::ensure!(count > 0, "the connection was closed");
        }
    }

    /// Takes the bytes of standard output, or of a file, up to the result.
    async fn take(&mut self, mut each: impl FnMut(&[u8])) -> anyhow::Result<Value> {
        let mut owed = 0;
        loop {
            let Heard {
                kind,
                channel,
                payload,
            } = self.hear().await?;
            match kind {
                Some(Kind::Data) if channel == channel::OUTPUT => {
                    each(&payload);
                    owed += u32::try_from(payload.len())?;
                    if owed >= PORTION_BYTES {
                        self.say(Kind::Credit, channel, &owed.to_le_bytes()).await?;
                        owed = 0;
                    }
                }
                Some(Kind::Result) => return Ok(serde_json::from_slice(&payload)?),
                _ => {}
            }
        }
    }
}

impl Machine {
    /// Runs a command, and answers what it wrote.
    pub(crate) async fn exec(&mut self, argv: &[&str]) -> anyhow::Result<Vec<u8>> {
        let exec = json!({"argv": argv, "timeout_ms": 60_000, "stdin": false});
        self.port.open(json!({"exec": exec})).await?;
        let mut stdout = Vec::new();
        let end = self
            .port
            .take(|bytes| stdout.extend_from_slice(bytes))
            .await?;
        anyhow::ensure!(end["exit_code"] == 0, "the command ended with {end}");
        Ok(stdout)
    }

    /// Stores a file.
    pub(crate) async fn write(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let port = &mut self.port;
        port.open(json!({"write": {"path": path, "mode": 0o644}}))
            .await?;
        let mut credit = usize::try_from(WINDOW_BYTES)?;
        for piece in content.chunks(PAYLOAD_MAX_BYTES) {
            while credit < piece.len() {
                let heard = port.hear().await?;
                anyhow::ensure!(heard.kind == Some(Kind::Credit), "{:?}", heard.kind);
                let more: [u8; 4] = heard.payload.as_slice().try_into()?;
                credit += usize::try_from(u32::from_le_bytes(more))?;
            }
            credit -= piece.len();
            port.say(Kind::Data, channel::INPUT, piece).await?;
        }
        port.say(Kind::End, channel::INPUT, &[]).await?;
        let size = size_of(&port.take(|_| {}).await?)?;
        anyhow::ensure!(size == content.len(), "{size} bytes were stored");
        Ok(())
    }

    /// Reads a file, and answers how many bytes it has.
    pub(crate) async fn read(&mut self, path: &str) -> anyhow::Result<usize> {
        self.port.open(json!({"read": {"path": path}})).await?;
        let mut size = 0;
        let result = self.port.take(|bytes| size += bytes.len()).await?;
        let sent = size_of(&result)?;
        anyhow::ensure!(sent == size, "{size} bytes came of {sent}");
        Ok(size)
    }

    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        Ok(self.qemu.kill().await?)
    }
}

fn size_of(result: &Value) -> anyhow::Result<usize> {
    let size = result["size"].as_u64();
    Ok(usize::try_from(
        size.with_context(|| format!("the guest says {result}"))?,
    )?)
}
