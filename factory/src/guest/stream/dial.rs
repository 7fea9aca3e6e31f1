//! Making and synchronizing a connection to the stream port.
//!
//! What the port's last user left half said may still come. So the agent is told over its own port to begin anew, and
//! both sides say a mark that nobody has ever said before: everything up to it is thrown away.

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use rand::RngCore;
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::frame::{self, NONCE_BYTES};
use super::link::StreamLink;
use crate::guest::{Agent, GuestError};
use crate::wire::{Call, LinkError};

/// How long the guest may take to begin anew and to answer the mark.
const DEADLINE: Duration = Duration::from_secs(20);
/// How much may come before the mark: what the ports' queues and the sockets' buffers hold is far less.
const MAX_STALE_BYTES: usize = 8 * 1024 * 1024;
const RESET: &str = "vmint-stream-reset";

#[derive(Serialize)]
struct Arguments {
    nonce: String,
}

impl StreamLink {
    /// Dials the stream port of the guest that `agent` is in.
    ///
    /// # Cancel safety
    /// Safe: a dropped call closes its connection.
    pub(crate) async fn dial(socket: &Path, agent: &Agent) -> Result<Self, GuestError> {
        let synchronized = tokio::time::timeout(DEADLINE, synchronize(socket, agent)).await;
        let (socket, rest) = synchronized.unwrap_or(Err(GuestError::Silent {
            command: RESET,
            after: DEADLINE,
        }))?;
        Ok(Self::start(socket, rest, agent.clone()))
    }
}

async fn synchronize(path: &Path, agent: &Agent) -> Result<(UnixStream, BytesMut), GuestError> {
    let broken = |source| GuestError::Channel {
        command: RESET,
        source,
    };
    let failed = |error: std::io::Error| broken(LinkError::Io(error.kind()));
    let mut socket = UnixStream::connect(path).await.map_err(failed)?;
    let mut nonce = [0; NONCE_BYTES];
    rand::rng().fill_bytes(&mut nonce);
    let arguments = Arguments {
        nonce: nonce.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let _: IgnoredAny = agent.call(Call::named(RESET, &arguments), DEADLINE).await?;
    let mark = frame::mark(nonce);
    socket.write_all(&mark).await.map_err(failed)?;
    let mut stale = 0;
    let mut incoming = BytesMut::new();
    loop {
        if socket.read_buf(&mut incoming).await.map_err(failed)? == 0 {
            return Err(GuestError::Closed);
        }
        if let Some(at) = find(&incoming, &mark) {
            let rest = incoming.split_off(at + mark.len());
            return Ok((socket, rest));
        }
        // What may be the beginning of the mark is kept.
        let passed = incoming.len().saturating_sub(mark.len() - 1);
        stale += passed;
        if stale > MAX_STALE_BYTES {
            let reason = format!("no mark in {MAX_STALE_BYTES} bytes");
            return Err(broken(LinkError::Malformed { reason }));
        }
        drop(incoming.split_to(passed));
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
