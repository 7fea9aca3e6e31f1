//! The actor that owns a socket, and the handles to it.

use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::line::LineReader;
use super::said::{Event, Kind, classify, excerpt, parse_reply};
use crate::supervise::contain;

/// Requests that wait for their turn on one link; the callers are few and each waits for its reply.
const QUEUED_REQUESTS: usize = 32;

/// Why a link does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The other side closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The program on the other side is gone, although the connection is not.
    #[error("the other side ended")]
    Ended,
    /// The operating system refused.
    #[error("the connection failed: {0}")]
    Io(std::io::ErrorKind),
    /// A line is longer than any answer may be.
    #[error("a line is longer than {max_bytes} bytes")]
    TooLong {
        /// The limit.
        max_bytes: usize,
    },
    /// What came is not what the protocol says.
    #[error("not understood: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// A command was not answered in time.
    #[error("no answer within {}", crate::text::duration(*.after))]
    Deadline {
        /// How long it was waited for.
        after: Duration,
    },
    /// The other side answered with an error.
    #[error("{0}")]
    Refused(String),
}

/// A request as it is written.
#[derive(Serialize)]
struct Command<'a, A> {
    execute: &'static str,
    arguments: &'a A,
    id: u64,
}

struct Request {
    line: Vec<u8>,
    /// Goes with the first byte of the line.
    fd: Option<OwnedFd>,
    id: u64,
    reply: oneshot::Sender<Vec<u8>>,
}

/// A handle to a connection. The connection ends with its last handle.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    requests: mpsc::Sender<Request>,
    next_id: Arc<AtomicU64>,
    /// Why the link is dead, once it is.
    verdict: watch::Receiver<Option<LinkError>>,
}

impl Link {
    /// Takes a connected socket over. A line has at most `max_line_bytes`. `on_event` is called by the actor, so it must
    /// not block.
    pub(crate) fn start(
        socket: UnixStream,
        max_line_bytes: usize,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Self {
        let (read, write) = socket.into_split();
        let (requests, inbox) = mpsc::channel(QUEUED_REQUESTS);
        let (verdict_sender, verdict) = watch::channel(None);
        let actor = Actor {
            lines: LineReader::new(read, max_line_bytes),
            write,
            on_event: Box::new(on_event),
            outgoing: Bytes::new(),
            passing: None,
            pending: HashMap::new(),
        };
        tokio::spawn(async move {
            let why = contain(actor.run(inbox), LinkError::Closed).await;
            verdict_sender.send_replace(Some(why));
        });
        Self {
            requests,
            next_id: Arc::default(),
            verdict,
        }
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// [`LinkError::Deadline`] when the reply takes longer than `after`, the other side's own refusal, or why the link
    /// is dead.
    ///
    /// # Cancel safety
    /// Safe: when the future is dropped, the reply is read and thrown away.
    pub(crate) async fn command<A: Serialize, T: DeserializeOwned>(
        &self,
        execute: &'static str,
        arguments: &A,
        after: Duration,
    ) -> Result<T, LinkError> {
        self.command_with(execute, arguments, None, after).await
    }

    /// The same, and hands a descriptor over with it. It is closed here once it was sent.
    pub(crate) async fn command_with<A: Serialize, T: DeserializeOwned>(
        &self,
        execute: &'static str,
        arguments: &A,
        fd: Option<OwnedFd>,
        after: Duration,
    ) -> Result<T, LinkError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let malformed = |e: serde_json::Error| LinkError::Malformed {
            reason: e.to_string(),
        };
        let command = Command {
            execute,
            arguments,
            id,
        };
        let mut line = serde_json::to_vec(&command).map_err(malformed)?;
        line.push(b'\n');
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            let request = Request {
                line,
                fd,
                id,
                reply,
            };
            if self.requests.send(request).await.is_err() {
                return Err(self.why_dead().await);
            }
            match answer.await {
                Ok(line) => parse_reply(&line),
                Err(_) => Err(self.why_dead().await),
            }
        };
        tokio::time::timeout(after, exchange)
            .await
            .unwrap_or(Err(LinkError::Deadline { after }))
    }

    /// Waits until the link is dead and says why.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub(crate) async fn why_dead(&self) -> LinkError {
        let mut verdict = self.verdict.clone();
        match verdict.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or(LinkError::Closed),
            Err(_) => LinkError::Closed,
        }
    }
}

struct Actor {
    lines: LineReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    on_event: Box<dyn Fn(Event) + Send + Sync>,
    /// What is left to write of the request whose turn it is, and the descriptor that goes with its next byte.
    outgoing: Bytes,
    passing: Option<OwnedFd>,
    /// Who waits for which reply.
    pending: HashMap<u64, oneshot::Sender<Vec<u8>>>,
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) -> LinkError {
        loop {
            // Reading goes on while something is being written: a peer that answers at length before it reads on
            // would wait for us, and we for it.
            let step = tokio::select! {
                request = inbox.recv(), if self.outgoing.is_empty() => match request {
                    Some(request) => {
                        self.accept(request);
                        Ok(())
                    }
                    None => return LinkError::Closed,
                },
                count = write(&self.write, &self.outgoing, self.passing.as_ref()), if !self.outgoing.is_empty() => match count {
                    Ok(count) => {
                        self.outgoing.advance(count);
                        self.passing = None;
                        Ok(())
                    }
                    Err(error) => Err(LinkError::Io(error.kind())),
                },
                line = self.lines.next() => line.and_then(|line| self.take(line)),
            };
            if let Err(why) = step {
                return why;
            }
        }
    }

    fn accept(&mut self, request: Request) {
        // A reply whose caller gave up is passed over when it comes.
        self.pending.retain(|_, reply| !reply.is_closed());
        self.pending.insert(request.id, request.reply);
        self.outgoing = request.line.into();
        self.passing = request.fd;
    }

    fn take(&mut self, line: Vec<u8>) -> Result<(), LinkError> {
        match classify(&line)? {
            Kind::Event(event) => (self.on_event)(event),
            Kind::Greeting => {}
            Kind::Reply(id) => match id.and_then(|id| self.pending.remove(&id)) {
                // The caller may have gone; then the reply is out of the way.
                Some(reply) => drop(reply.send(line)),
                None => tracing::trace!(line = excerpt(&line), "a reply that is not waited for"),
            },
        }
        Ok(())
    }
}

/// Writes what there is room for; a descriptor goes with the first byte.
async fn write(
    socket: &OwnedWriteHalf,
    bytes: &[u8],
    fd: Option<&OwnedFd>,
) -> std::io::Result<usize> {
    let socket: &UnixStream = socket.as_ref();
    let fds: Vec<_> = fd.map(AsRawFd::as_raw_fd).into_iter().collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights };
    let send = || {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let bytes = [IoSlice::new(bytes)];
        Ok(sendmsg::<()>(
            socket.as_raw_fd(),
            &bytes,
            rights,
            flags,
            None,
        )?)
    };
    socket.async_io(Interest::WRITABLE, send).await
}
