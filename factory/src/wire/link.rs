//! The actor that owns a socket, and the handles to it.

use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::call::Call;
use super::line::LineReader;
use super::said::{Event, Kind, classify, excerpt, parse_reply};
use crate::supervise::contain;

/// Requests that wait for their turn on one link; the callers are few and each waits for its reply.
const QUEUED_REQUESTS: usize = 32;
/// The byte that the agent's delimited synchronization puts before its reply, and that resets its parser.
const SENTINEL: u8 = 0xff;

/// Why a link does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The other side closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// Whoever answered on the other side is gone, although the connection is not.
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

/// How a link is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSettings {
    /// Longest line taken.
    pub(crate) max_line_bytes: usize,
    /// Whether a line that is not understood ends the link. The monitor never sends one; the agent of a restored
    /// guest may still have the rest of the template's conversation to say.
    pub(crate) strict: bool,
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
    /// Takes a connected socket over. `on_event` is called by the actor, so it must not block.
    pub(crate) fn start(
        socket: UnixStream,
        settings: LinkSettings,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Self {
        Self::start_until(socket, settings, on_event, std::future::pending())
    }

    /// The same for a connection that is of no use any more when `lost` says why.
    pub(crate) fn start_until(
        socket: UnixStream,
        settings: LinkSettings,
        on_event: impl Fn(Event) + Send + Sync + 'static,
        lost: impl Future<Output = LinkError> + Send + 'static,
    ) -> Self {
        let (read, write) = socket.into_split();
        let (requests, inbox) = mpsc::channel(QUEUED_REQUESTS);
        let (verdict_sender, verdict) = watch::channel(None);
        let lines = LineReader::new(read, settings.max_line_bytes);
        let on_event = Box::new(on_event);
        let actor = Actor {
            lines,
            write,
            on_event,
            strict: settings.strict,
            outgoing: Vec::new(),
            passing: None,
            pending: HashMap::new(),
        };
        tokio::spawn(async move {
            let end = async {
                tokio::select! {
                    why = actor.run(inbox) => why,
                    why = lost => why,
                }
            };
            let why = contain(end, LinkError::Closed).await;
            verdict_sender.send_replace(Some(why));
        });
        // Ids of one connection must not be those of the one before it: its late replies may still come.
        let first_id = u64::from(rand::random::<u32>());
        Self {
            requests,
            next_id: Arc::new(AtomicU64::new(first_id)),
            verdict,
        }
    }

    /// An id for one command to come.
    pub(crate) fn take_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A link that was closed before anything was said.
    pub(crate) fn closed() -> Self {
        let (requests, _) = mpsc::channel(1);
        let (_, verdict) = watch::channel(Some(LinkError::Closed));
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
        command: &Call<'_, A>,
        after: Duration,
    ) -> Result<T, LinkError> {
        self.command_with(command, None, after).await
    }

    /// The same, and hands a descriptor over with it. It is closed here once it was sent.
    pub(crate) async fn command_with<A: Serialize, T: DeserializeOwned>(
        &self,
        command: &Call<'_, A>,
        fd: Option<OwnedFd>,
        after: Duration,
    ) -> Result<T, LinkError> {
        let id = command.id.unwrap_or_else(|| self.take_id());
        let mut line = Vec::new();
        if command.delimited {
            line.push(SENTINEL);
        }
        serde_json::to_writer(&mut line, &command.with_id(id)).map_err(|e| {
            LinkError::Malformed {
                reason: e.to_string(),
            }
        })?;
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

    /// Whether the link is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.verdict.borrow().is_some()
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
    strict: bool,
    /// What is not written yet of the request whose turn it is.
    outgoing: Vec<u8>,
    /// What goes with the next byte of it.
    passing: Option<OwnedFd>,
    /// Who waits for which reply.
    pending: HashMap<u64, oneshot::Sender<Vec<u8>>>,
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) -> LinkError {
        loop {
            // Reading goes on while something is being written: a guest that answers at length before it reads on
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
                        self.outgoing.drain(..count);
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
        // Who gave up waiting is forgotten here: at most as many are remembered as gave up since the last request.
        self.pending.retain(|_, reply| !reply.is_closed());
        self.pending.insert(request.id, request.reply);
        self.outgoing = request.line;
        self.passing = request.fd;
    }

    fn take(&mut self, mut line: Vec<u8>) -> Result<(), LinkError> {
        // What stands before the sentinel is the rest of an earlier conversation.
        if let Some(at) = line.iter().rposition(|&b| b == SENTINEL) {
            line.drain(..=at);
        }
        match classify(&line) {
            Ok(Kind::Event(event)) => (self.on_event)(event),
            Ok(Kind::Greeting) => {}
            Ok(Kind::Reply(id)) => match id.and_then(|id| self.pending.remove(&id)) {
                // The caller may have gone; then nobody wants the reply, and it is out of the way.
                Some(reply) => drop(reply.send(line)),
                None => tracing::trace!(line = excerpt(&line), "a reply that nobody waits for"),
            },
            Err(why) if self.strict => return Err(why),
            Err(_) => tracing::trace!(line = excerpt(&line), "a line that is not understood"),
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
