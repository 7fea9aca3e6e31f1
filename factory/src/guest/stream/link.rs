//! The actor that owns a connection to the stream port.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES};
use super::handle::Stream;
use super::mux::{Incoming, Mux, Violation};
use crate::guest::{Agent, GuestError};
use crate::supervise::contain;
use crate::wire::{Heard, LinkError};

/// How much is read, and how much is written, at a time: two of the longest frames.
const CHUNK_BYTES: usize = 2 * (HEADER_BYTES + MAX_PAYLOAD_BYTES);

/// What the actor and the handles have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// Held for as long as it takes to move some bytes, never across a wait.
    mux: Mutex<Mux>,
    /// There may be something to write.
    writable: Notify,
}

impl Shared {
    /// A panic under this lock ends the link, and nothing else: what it guards is one guest's.
    pub(super) fn mux(&self) -> MutexGuard<'_, Mux> {
        self.mux.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has come of a stream, if anything.
    pub(super) fn take(&self, id: u16) -> Option<Incoming> {
        let taken = self.mux().take(id);
        // What was taken is credit that can be given back.
        taken.inspect(|_| self.writable.notify_one())
    }

    /// Does something to the streams that may give the actor something to write.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Mux) -> T) -> T {
        let changed = change(&mut self.mux());
        self.writable.notify_one();
        changed
    }
}

/// A connection to the stream port of one guest. It ends with its last handle, a stream being one too.
#[derive(Clone, Debug)]
pub(crate) struct StreamLink {
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
    _alive: Arc<DropGuard>,
}

impl StreamLink {
    /// Takes a synchronized connection over; `rest` has been read from it already. It ends with `agent`, too.
    pub(super) fn start(socket: UnixStream, rest: BytesMut, agent: Agent) -> Self {
        let shared = Arc::new(Shared {
            mux: Mutex::default(),
            writable: Notify::new(),
        });
        let stop = CancellationToken::new();
        let (read, write) = socket.into_split();
        let actor = Actor {
            heard: agent.heard().clone(),
            read,
            write,
            incoming: rest,
            outgoing: Vec::new(),
            shared: Arc::clone(&shared),
        };
        let alive = Arc::new(stop.clone().drop_guard());
        tokio::spawn({
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            async move {
                let end = async {
                    tokio::select! {
                        why = actor.run() => why,
                        why = agent.lost() => why,
                        () = stop.cancelled() => GuestError::Closed,
                    }
                };
                let why = contain(end, GuestError::Closed).await;
                // The socket is closed by now: whoever dials next finds the way free.
                shared.mux().lose(why);
            }
        });
        Self {
            shared,
            stop,
            _alive: alive,
        }
    }

    /// Whether a new stream has to be opened on a new connection. This one ends then, if it has not.
    pub(crate) fn is_lost(&self) -> bool {
        let is_lost = self.shared.mux().is_lost();
        if is_lost {
            self.stop.cancel();
        }
        is_lost
    }

    /// Opens a stream with this object, which fits into a frame.
    pub(super) fn open(&self, open: Vec<u8>) -> Result<Stream, GuestError> {
        let (id, waiters) = self.shared.change(|mux| mux.open(open))?;
        Ok(Stream::new(self.clone(), id, waiters))
    }
}

struct Actor {
    /// What comes from a stream was said by the guest's agent, too.
    heard: Heard,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    incoming: BytesMut,
    outgoing: Vec<u8>,
    shared: Arc<Shared>,
}

impl Actor {
    async fn run(mut self) -> GuestError {
        loop {
            if let Err(violation) = self.take_frames() {
                return broken(LinkError::Malformed {
                    reason: violation.to_string(),
                });
            }
            self.fill();
            self.incoming.reserve(CHUNK_BYTES);
            let step = tokio::select! {
                count = self.read.read_buf(&mut self.incoming) => match count {
                    Ok(0) => return GuestError::Closed,
                    count => count.map(|_| self.heard.now()),
                },
                count = self.write.write(&self.outgoing), if !self.outgoing.is_empty() => {
                    count.map(|count| drop(self.outgoing.drain(..count)))
                }
                () = self.shared.writable.notified(), if self.outgoing.len() < CHUNK_BYTES => Ok(()),
            };
            if let Err(error) = step {
                return broken(LinkError::Io(error.kind()));
            }
        }
    }

    /// Takes every frame that has come whole.
    fn take_frames(&mut self) -> Result<(), TooMuch> {
        while let Some(&header) = self.incoming.first_chunk::<HEADER_BYTES>() {
            let header = Header::read(header).ok_or(TooMuch::TooLong)?;
            let Some(payload) = self
                .incoming
                .get(HEADER_BYTES..HEADER_BYTES + header.length)
            else {
                return Ok(());
            };
            self.shared.mux().on_frame(header, payload)?;
            self.incoming.advance(HEADER_BYTES + header.length);
        }
        Ok(())
    }

    /// Collects what is to be written.
    fn fill(&mut self) {
        let mut mux = self.shared.mux();
        while self.outgoing.len() < CHUNK_BYTES && mux.write_next(&mut self.outgoing) {}
    }
}

/// What a guest may not send.
#[derive(Debug, thiserror::Error)]
enum TooMuch {
    #[error("a frame is longer than {MAX_PAYLOAD_BYTES} bytes")]
    TooLong,
    #[error(transparent)]
    Violation(#[from] Violation),
}

fn broken(source: LinkError) -> GuestError {
    let command = "a stream";
    GuestError::Channel { command, source }
}
