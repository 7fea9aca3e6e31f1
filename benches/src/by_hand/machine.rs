//! A clone by hand that runs: commands through its agent, files through its stream port.

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;

use super::lines::Lines;

/// Bytes of a frame's header, and most bytes of its payload.
const HEADER_BYTES: usize = 8;
const PAYLOAD_MAX_BYTES: usize = 32 * 1024;
/// What may be sent before the first credit, and how much is given back at a time.
const WINDOW_BYTES: usize = 256 * 1024;
const PORTION_BYTES: usize = WINDOW_BYTES / 2;
/// Two of the longest frames.
pub(super) const BUFFER_BYTES: usize = 2 * PAYLOAD_MAX_BYTES;
/// Kinds of frames.
const OPEN: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const CREDIT: u8 = 4;
const RESULT: u8 = 5;
/// The one stream that is ever open.
const STREAM: u16 = 1;
/// What the host says to synchronize: any 16 bytes would do.
const NONCE: [u8; 16] = [7; 16];

/// It ends when it is dropped.
pub(crate) struct Machine {
    pub(super) qemu: Child,
    pub(super) agent: Lines,
    pub(super) stream: BufReader<UnixStream>,
    pub(super) is_synchronized: bool,
}

impl Machine {
    /// Runs a command, and answers what it wrote.
    pub(crate) async fn exec(&mut self, argv: &[&str]) -> anyhow::Result<Vec<u8>> {
        let exec = json!({"argv": argv, "timeout-ms": 60_000, "max-output": 65536});
        let end = self.agent.call("vmint-exec", exec).await?;
        anyhow::ensure!(end["exit_code"] == 0, "the command ended with {end}");
        let stdout = end["stdout"].as_str().context("a command has an output")?;
        Ok(BASE64_STANDARD.decode(stdout)?)
    }

    /// Stores a file.
    pub(crate) async fn write(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let stream = self.stream().await?;
        let open = json!({"write": {"path": path, "mode": 0o644}}).to_string();
        say(stream, OPEN, open.as_bytes()).await?;
        let mut credit = WINDOW_BYTES;
        for piece in content.chunks(PAYLOAD_MAX_BYTES) {
            while credit < piece.len() {
                match hear(stream).await? {
                    (CREDIT, _, payload) => credit += number(&payload)?,
                    other => anyhow::bail!("{other:?} in place of credit"),
                }
            }
            credit -= piece.len();
            say(stream, DATA, piece).await?;
        }
        say(stream, END, &[]).await?;
        let size = result(stream).await?;
        anyhow::ensure!(size == content.len(), "{size} bytes were stored");
        Ok(())
    }

    /// Reads a file, and answers how many bytes it has.
    pub(crate) async fn read(&mut self, path: &str) -> anyhow::Result<usize> {
        let stream = self.stream().await?;
        let open = json!({"read": {"path": path}}).to_string();
        say(stream, OPEN, open.as_bytes()).await?;
        let (mut size, mut owed) = (0, 0);
        loop {
            match hear(stream).await? {
                (DATA, 1, payload) => {
                    size += payload.len();
                    owed += payload.len();
                    if owed >= PORTION_BYTES {
                        let portion = u32::try_from(owed)?.to_le_bytes();
                        frame(stream, CREDIT, 1, &portion).await?;
                        owed = 0;
                    }
                }
                (RESULT, _, payload) => {
                    let sent = size_of(&payload)?;
                    anyhow::ensure!(sent == size, "{size} bytes came of {sent}");
                    return Ok(size);
                }
                _ => {}
            }
        }
    }

    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        Ok(self.qemu.kill().await?)
    }

    /// The stream port, synchronized.
    async fn stream(&mut self) -> anyhow::Result<&mut BufReader<UnixStream>> {
        if !self.is_synchronized {
            let nonce: String = NONCE.iter().map(|byte| format!("{byte:02x}")).collect();
            let reset = json!({"nonce": nonce});
            self.agent.call("vmint-stream-reset", reset).await?;
            let mut mark = vec![255, 255, 255, 0, 16, 0, 0, 0];
            mark.extend_from_slice(&NONCE);
            self.stream.write_all(&mark).await?;
            // Nobody has used this port before: the mark is the first that comes.
            let mut back = vec![0; mark.len()];
            self.stream.read_exact(&mut back).await?;
            anyhow::ensure!(back == mark, "the mark came back as {back:?}");
            self.is_synchronized = true;
        }
        Ok(&mut self.stream)
    }
}

async fn say(stream: &mut BufReader<UnixStream>, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
    frame(stream, kind, 0, payload).await
}

async fn frame(
    stream: &mut BufReader<UnixStream>,
    kind: u8,
    channel: u8,
    payload: &[u8],
) -> anyhow::Result<()> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&STREAM.to_le_bytes());
    frame.extend_from_slice(&[kind, channel]);
    frame.extend_from_slice(&u32::try_from(payload.len())?.to_le_bytes());
    frame.extend_from_slice(payload);
    Ok(stream.write_all(&frame).await?)
}

/// The kind, the channel and the payload of the next frame.
async fn hear(stream: &mut BufReader<UnixStream>) -> anyhow::Result<(u8, u8, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let [_, _, kind, channel, length @ ..] = header;
    let mut payload = vec![0; usize::try_from(u32::from_le_bytes(length))?];
    stream.read_exact(&mut payload).await?;
    Ok((kind, channel, payload))
}

/// The size in the result, whatever comes before.
async fn result(stream: &mut BufReader<UnixStream>) -> anyhow::Result<usize> {
    loop {
        if let (RESULT, _, payload) = hear(stream).await? {
            return size_of(&payload);
        }
    }
}

fn size_of(result: &[u8]) -> anyhow::Result<usize> {
    let result: Value = serde_json::from_slice(result)?;
    let size = result["size"].as_u64();
    Ok(usize::try_from(
        size.with_context(|| format!("the guest says {result}"))?,
    )?)
}

fn number(payload: &[u8]) -> anyhow::Result<usize> {
    Ok(usize::try_from(u32::from_le_bytes(payload.try_into()?))?)
}
