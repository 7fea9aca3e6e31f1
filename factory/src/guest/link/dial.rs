//! Making a connection: both sides say a mark that was never said before.
//!
//! What the port's last user left half said may still come, and the guest may take this side's mark for the rest of
//! such a frame. So everything is passed over until the mark comes back, and a mark that does not come back soon is
//! followed by what ends any frame, and by another mark.

use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rand::RngCore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;
use vmint_guest_protocol::frame::{Found, Mark, NONCE_BYTES, find_mark, padding};
use vmint_guest_protocol::{PROTOCOL, PROTOCOL_OLDEST};

use crate::guest::GuestError;
use crate::wire::LinkError;

/// How long the first mark is waited for; each later one for twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How much may come before the mark: what the port's queue and the socket's buffers hold is far less.
const STALE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// What is asked for, in a message.
const STEP: &str = "the mark of a connection";

/// A connection that has begun.
pub(super) struct Dialled {
    pub(super) socket: UnixStream,
    /// What has been read from it already.
    pub(super) rest: BytesMut,
    /// The guest's mark: the seal of every frame, and the protocols that it speaks.
    pub(super) mark: Mark,
    /// Counted from before it was dialled.
    pub(super) losses: Losses,
}

/// Dials the agent's socket until the guest has said the mark, at most until `deadline`.
///
/// # Cancel safety
/// Safe: a dropped call closes its connection.
pub(super) async fn dial(
    path: &Path,
    losses: &watch::Receiver<u64>,
    deadline: Instant,
) -> Result<Dialled, GuestError> {
    let begun = Instant::now();
    let silent = || GuestError::Silent {
        command: STEP,
        after: begun.elapsed(),
    };
    loop {
        let losses = Losses::after_now(losses);
        let attempt = async {
            tokio::select! {
                dialled = attempt(path, &losses) => dialled,
                why = losses.clone().next() => Err(why),
            }
        };
        match tokio::time::timeout_at(deadline, attempt).await {
            Err(_) => return Err(silent()),
            // The agent has ended, and will be started again: what it had read is lost.
            Ok(Err(LinkError::Ended)) => {}
            Ok(Err(LinkError::Closed)) => return Err(GuestError::Closed),
            Ok(Err(source)) => {
                let command = STEP;
                return Err(GuestError::Channel { command, source });
            }
            Ok(Ok(dialled)) => return refuse_strange(dialled),
        }
    }
}

async fn attempt(path: &Path, losses: &Losses) -> Result<Dialled, LinkError> {
    let failed = |error: std::io::Error| LinkError::Io(error.kind());
    let mut socket = UnixStream::connect(path).await.map_err(failed)?;
    let mut incoming = BytesMut::new();
    let mut stale = 0;
    let mut mark = own_mark();
    let mut outgoing = mark.bytes().to_vec();
    let mut wait = FIRST_WAIT;
    let mut waited = Box::pin(tokio::time::sleep(wait));
    loop {
        let (mut read, mut write) = socket.split();
        tokio::select! {
            count = read.read_buf(&mut incoming) => if count.map_err(failed)? == 0 {
                return Err(LinkError::Closed);
            },
            count = write.write(&outgoing), if !outgoing.is_empty() => {
                outgoing.drain(..count.map_err(failed)?);
                continue;
            }
            () = &mut waited => {
                wait *= 2;
                waited = Box::pin(tokio::time::sleep(wait));
                // A guest that has not even taken the last one needs no other.
                if outgoing.is_empty() {
                    mark = own_mark();
                    outgoing = padding();
                    outgoing.extend_from_slice(&mark.bytes());
                }
                continue;
            }
        }
        if let Some(said) = said_back(&mark, &mut incoming, &mut stale)? {
            return Ok(Dialled {
                socket,
                rest: incoming,
                mark: said,
                losses: losses.clone(),
            });
        }
    }
}

fn own_mark() -> Mark {
    let mut nonce = [0; NONCE_BYTES];
    rand::rng().fill_bytes(&mut nonce);
    Mark::own(nonce)
}

/// Looks for the guest's answer to a mark, and passes over all before it; answers to earlier marks are of no use.
fn said_back(
    mark: &Mark,
    incoming: &mut BytesMut,
    stale: &mut usize,
) -> Result<Option<Mark>, LinkError> {
    loop {
        match find_mark(incoming) {
            Found::At(said, end) => {
                incoming.advance(end);
                if said.nonce == mark.nonce {
                    return Ok(Some(said));
                }
                *stale += end;
            }
            Found::NotBefore(end) => {
                incoming.advance(end);
                *stale += end;
                if *stale > STALE_MAX_BYTES {
                    let reason = format!("no mark in {STALE_MAX_BYTES} bytes");
                    return Err(LinkError::Malformed { reason });
                }
                return Ok(None);
            }
        }
    }
}

/// Refuses a guest that shares no protocol with this program.
fn refuse_strange(dialled: Dialled) -> Result<Dialled, GuestError> {
    let Mark { newest, oldest, .. } = dialled.mark;
    if dialled.mark.common().is_some() {
        return Ok(dialled);
    }
    let hint = if oldest > PROTOCOL {
        "use the guest that came with it"
    } else {
        "it is of an earlier version: release it, or build its template again"
    };
    let reason = format!(
        "the guest's agent speaks protocol {oldest} to {newest}, and this version of vmint {PROTOCOL_OLDEST} to {PROTOCOL}; \
         hint: {hint}"
    );
    Err(GuestError::Proof { step: STEP, reason })
}

/// How often the guest has closed the agent's port, seen from one moment on.
#[derive(Clone)]
pub(super) struct Losses {
    count: watch::Receiver<u64>,
    at_first: u64,
}

impl Losses {
    pub(super) fn after_now(count: &watch::Receiver<u64>) -> Self {
        let at_first = *count.borrow();
        Self {
            count: count.clone(),
            at_first,
        }
    }

    /// Waits for the next one.
    pub(super) async fn next(mut self) -> LinkError {
        let at_first = self.at_first;
        let has_risen = self
            .count
            .wait_for(|count| *count != at_first)
            .await
            .is_ok();
        if !has_risen {
            // The monitor is gone: the connection itself will tell.
            std::future::pending::<()>().await;
        }
        LinkError::Ended
    }
}
