//! The actor that owns the connection, and the handle to it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use vmint_guest_protocol::STREAMS_MAX;
use vmint_guest_protocol::frame::{FRAME_MAX_BYTES, Mark, Seal};
use vmint_guest_protocol::message::REQUEST_MAX_BYTES;

use super::dial::{Dialled, dial};
use super::heard::Heard;
use super::mux::{Incoming, Mux, NoStream, Opening};
use super::stream::Stream;
use crate::guest::GuestError;
use crate::guest::error::{Refusal, failed};
use crate::supervise::contain;
use crate::wire::LinkError;

/// How much is read, and how much is written, at a time: two of the longest frames.
const CHUNK_BYTES: usize = 2 * FRAME_MAX_BYTES;
/// Requests under way at once; more wait for their turn.
const REQUESTS_MAX: usize = 64;

/// What the actor and the handles have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// Held for as long as it takes to move some bytes, never across a wait.
    mux: Mutex<Mux>,
    /// There may be something to write.
    writable: Notify,
    turns: Semaphore,
}

impl Shared {
    fn new(seal: Seal) -> Arc<Self> {
        Arc::new(Self {
            mux: Mutex::new(Mux::new(seal)),
            writable: Notify::new(),
            turns: Semaphore::new(REQUESTS_MAX),
        })
    }

    /// A panic under this lock ends the link, and nothing else: what it guards is one guest's.
    fn mux(&self) -> MutexGuard<'_, Mux> {
        self.mux.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has come of a stream, if anything.
    pub(super) fn take(&self, id: u16) -> Option<Result<Incoming, LinkError>> {
        let (taken, owes_credit) = {
            let mut mux = self.mux();
            (mux.take(id), mux.owes_credit(id))
        };
        if owes_credit {
            self.writable.notify_one();
        }
        taken
    }

    /// Lets go of a stream. One that has ended costs the actor nothing.
    pub(super) fn abandon(&self, id: u16) {
        let is_to_cancel = self.mux().abandon(id);
        if is_to_cancel {
            self.writable.notify_one();
        }
    }

    /// Does something that may give the actor something to write.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Mux) -> T) -> T {
        let changed = change(&mut self.mux());
        self.writable.notify_one();
        changed
    }

    fn why_lost(&self) -> LinkError {
        self.mux().lost().unwrap_or(LinkError::Closed)
    }
}

/// A connection to the agent of one guest. It ends with its last handle, a stream being one too.
#[derive(Clone, Debug)]
pub(in crate::guest) struct Link {
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
    _alive: Arc<DropGuard>,
    heard: Heard,
    mark: Mark,
}

/// A request as it is written.
#[derive(Serialize)]
struct Request<'a, A> {
    id: u64,
    execute: &'static str,
    arguments: &'a A,
}

impl Link {
    /// Dials the agent's socket and waits until the guest has answered, at most until `deadline`. `losses` counts how
    /// often the guest has closed the port: one more, and everything that waits for the guest ends at once.
    ///
    /// # Cancel safety
    /// Safe: a dropped call closes its connection.
    pub(in crate::guest) async fn dial(
        path: &Path,
        losses: &watch::Receiver<u64>,
        deadline: Instant,
    ) -> Result<Self, GuestError> {
        Ok(Self::start(dial(path, losses, deadline).await?))
    }

    fn start(dialled: Dialled) -> Self {
        let Dialled {
            socket,
            rest,
            mark,
            losses,
        } = dialled;
        let link = Self::idle(mark);
        link.heard.now();
        let (read, write) = socket.into_split();
        let actor = Actor {
            heard: link.heard.clone(),
            read,
            write,
            incoming: rest,
            outgoing: Vec::new(),
            written: 0,
            shared: Arc::clone(&link.shared),
        };
        let (shared, stop) = (Arc::clone(&link.shared), link.stop.clone());
        tokio::spawn(async move {
            let end = async {
                tokio::select! {
                    why = actor.run() => why,
                    why = losses.next() => why,
                    () = stop.cancelled() => LinkError::Closed,
                }
            };
            let why = contain(end, LinkError::Closed).await;
            // The socket is closed by now: the next one to dial finds the way free.
            shared.mux().lose(why);
        });
        link
    }

    /// A connection that was closed before anything was said.
    pub(in crate::guest) fn closed(mark: Mark) -> Self {
        let link = Self::idle(mark);
        link.shared.mux().lose(LinkError::Closed);
        link
    }

    fn idle(mark: Mark) -> Self {
        let stop = CancellationToken::new();
        Self {
            shared: Shared::new(mark.seal()),
            _alive: Arc::new(stop.clone().drop_guard()),
            stop,
            heard: Heard::default(),
            mark,
        }
    }

    /// The guest's mark: the protocols that it speaks.
    pub(in crate::guest) fn mark(&self) -> Mark {
        self.mark
    }

    /// When the guest was heard from last, on this connection.
    pub(in crate::guest) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Whether whatever comes next needs a new connection. This one ends then, if it has not.
    pub(in crate::guest) fn is_lost(&self) -> bool {
        let is_lost = self.shared.mux().is_lost();
        if is_lost {
            self.stop.cancel();
        }
        is_lost
    }

    /// Sends a request and waits for its reply: the answer, or the guest's refusal.
    ///
    /// # Cancel safety
    /// Safe for the connection. The guest may do what it was asked for.
    pub(in crate::guest) async fn ask<A: Serialize, T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: &A,
        within: Duration,
    ) -> Result<Result<T, Refusal>, GuestError> {
        let id = self.shared.mux().control.take_id();
        let request = Request {
            id,
            execute: command,
            arguments,
        };
        let message = match serde_json::to_vec(&request) {
            Ok(message) if message.len() <= REQUEST_MAX_BYTES => message,
            Ok(message) => {
                let bytes = message.len();
                return Ok(Err(Refusal::of_argument(format!(
                    "the request has {bytes} bytes, and a guest takes {REQUEST_MAX_BYTES}"
                ))));
            }
            Err(error) => return Ok(Err(Refusal::of_argument(error.to_string()))),
        };
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            // Closed it never is: the permit is an error only in a type.
            let _turn = self.shared.turns.acquire().await;
            let _waiting = Waiting {
                shared: &self.shared,
                id,
            };
            self.shared.change(|mux| mux.ask(id, message, reply))?;
            answer.await.map_err(|_| self.shared.why_lost())
        };
        let reply = tokio::time::timeout(within, exchange).await;
        let reply = reply.unwrap_or(Err(LinkError::Deadline { after: within }));
        let reply = reply.map_err(|error| failed(command, error))?;
        Refusal::or_answer(command, &reply)
    }

    /// Begins a stream.
    pub(in crate::guest) fn open(&self, opening: Opening) -> Result<Stream, GuestError> {
        let opened = self.shared.change(|mux| mux.open(opening));
        let (id, waiters) = opened.map_err(|none| match none {
            NoStream::TooMany => GuestError::TooManyStreams { limit: STREAMS_MAX },
            NoStream::Lost(why) => failed("a stream", why),
        })?;
        Ok(Stream::new(self.clone(), id, waiters))
    }
}

/// A request that is waited for. Dropped, its reply is of no use.
struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.mux().control.forget(self.id);
    }
}

struct Actor {
    heard: Heard,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    incoming: BytesMut,
    /// What is to be written, and how much of it is.
    outgoing: Vec<u8>,
    written: usize,
    shared: Arc<Shared>,
}

impl Actor {
    async fn run(mut self) -> LinkError {
        loop {
            if let Err(why) = self.take_frames() {
                return why;
            }
            self.fill();
            let step = tokio::select! {
                ready = self.read.readable() => match ready.and_then(|()| self.take_bytes()) {
                    Ok(0) => return LinkError::Closed,
                    count => count.map(drop),
                },
                count = self.write.write(&self.outgoing[self.written..]), if !self.outgoing.is_empty() => {
                    count.map(|count| self.written += count)
                }
                () = self.shared.writable.notified(), if self.outgoing.len() < CHUNK_BYTES => Ok(()),
            };
            match step {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    return LinkError::Io(error.kind());
                }
                _ => {}
            }
        }
    }

    /// Reads what is there. Between two readings an idle connection has no buffer: there is one for every guest.
    fn take_bytes(&mut self) -> std::io::Result<usize> {
        self.incoming.reserve(CHUNK_BYTES);
        let count = self.read.try_read_buf(&mut self.incoming)?;
        self.heard.now();
        Ok(count)
    }

    /// Takes every frame that has come whole.
    fn take_frames(&mut self) -> Result<(), LinkError> {
        let mut mux = self.shared.mux();
        let taken = mux.take_frames(&mut self.incoming);
        if self.incoming.is_empty() && mux.is_idle() {
            self.incoming = BytesMut::new();
        }
        taken.map_err(|violation| LinkError::Malformed {
            reason: violation.to_string(),
        })
    }

    /// Collects what is to be written.
    fn fill(&mut self) {
        if self.written == self.outgoing.len() {
            self.outgoing.clear();
            self.written = 0;
        }
        let mut mux = self.shared.mux();
        while self.outgoing.len() < CHUNK_BYTES && mux.write_next(&mut self.outgoing) {}
        if self.outgoing.is_empty() && mux.is_idle() {
            // Nothing of it is kept: there are secrets in some.
            self.outgoing = Vec::new();
        }
    }
}
