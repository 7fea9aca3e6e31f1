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
use super::heard::Heard;
use super::line::{Line, LineReader};
use super::outgoing::Outgoing;
use super::said::{Event, Kind, classify, excerpt, parse_reply};
use crate::supervise::contain;

/// Requests that wait for their turn on one link; the callers are few and each waits for its reply.
const QUEUED_REQUESTS: usize = 32;
/// The byte that the agent's delimited synchronization puts before its reply, and that resets its parser.
pub(super) const SENTINEL: u8 = 0xff;
/// Commands whose callers have given up and whose replies may still come, and be long.
const OWED_REPLIES: usize = 64;
/// What one line that is of no use counts at least: it costs as much to look at as a long one to skip.
const STRAY_LINE_BYTES: usize = 1024;

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
    /// The other side says much that nothing was asked for.
    #[error("more than {max_bytes} bytes came that nothing was asked for")]
    Stray {
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
    /// Longest line taken while no command that waits for its reply allows a longer one.
    pub(crate) max_line_bytes: usize,
    pub(crate) strays: Strays,
}

/// What comes of lines that are not understood, too long, or replies to nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strays {
    /// The first ends the link. The monitor never sends one.
    Refused,
    /// They are skipped: the agent of a restored guest, or one whose service was killed, may still have the rest of an
    /// earlier conversation to say. More than so many bytes of them between two replies end the link.
    Skipped {
        /// The limit.
        max_bytes: usize,
    },
}

struct Request {
    line: Vec<u8>,
    /// Goes with the first byte of the line.
    fd: Option<OwnedFd>,
    id: u64,
    awaited: Awaited,
}

/// A reply that is waited for.
struct Awaited {
    reply: oneshot::Sender<Vec<u8>>,
    max_bytes: usize,
}

/// A handle to a connection. The connection ends with its last handle.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    requests: mpsc::Sender<Request>,
    next_id: Arc<AtomicU64>,
    /// Why the link is dead, once it is.
    verdict: watch::Receiver<Option<LinkError>>,
    heard: Heard,
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
        let lines = LineReader::new(read);
        let on_event = Box::new(on_event);
        let heard = Heard::default();
        let actor = Actor {
            lines,
            write,
            on_event,
            settings,
            stray_bytes: 0,
            outgoing: Outgoing::default(),
            pending: HashMap::new(),
            heard: heard.clone(),
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
            heard,
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
            heard: Heard::default(),
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
                awaited: Awaited {
                    reply,
                    max_bytes: command.reply_max_bytes,
                },
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

    /// When the other side was heard from last.
    pub(crate) fn heard(&self) -> &Heard {
        &self.heard
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
    settings: LinkSettings,
    /// What came since the last reply, and was of no use.
    stray_bytes: usize,
    /// The request whose turn it is.
    outgoing: Outgoing,
    /// Who waits for which reply.
    pending: HashMap<u64, Awaited>,
    heard: Heard,
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) -> LinkError {
        loop {
            let max_bytes = self.max_line_bytes();
            // Reading goes on while something is being written: a guest that answers at length before it reads on
            // would wait for us, and we for it.
            let step = tokio::select! {
                request = inbox.recv(), if self.outgoing.is_done() => match request {
                    Some(request) => {
                        self.accept(request);
                        Ok(())
                    }
                    None => return LinkError::Closed,
                },
                count = write(&self.write, self.outgoing.rest(), self.outgoing.passing()), if !self.outgoing.is_done() => match count {
                    Ok(count) => {
                        self.outgoing.wrote(count);
                        Ok(())
                    }
                    Err(error) => Err(LinkError::Io(error.kind())),
                },
                line = self.lines.next(max_bytes) => line.and_then(|line| match line {
                    Line::Whole(line) => self.take(line),
                    Line::Skipped(bytes) => self.stray(bytes, LinkError::TooLong { max_bytes }),
                }),
            };
            if let Err(why) = step {
                return why;
            }
        }
    }

    fn accept(&mut self, request: Request) {
        self.forget_owed();
        self.pending.insert(request.id, request.awaited);
        self.outgoing = Outgoing::new(request.line, request.fd);
    }

    /// Replies whose callers gave up are still owed, and may be as long as those asked for; the oldest of too many are
    /// forgotten. Ids count up.
    fn forget_owed(&mut self) {
        let is_owed = |awaited: &Awaited| awaited.reply.is_closed();
        let owed = self.pending.iter().filter(|(_, it)| is_owed(it));
        let mut owed: Vec<u64> = owed.map(|(id, _)| *id).collect();
        owed.sort_unstable();
        for id in owed.iter().rev().skip(OWED_REPLIES) {
            self.pending.remove(id);
        }
    }

    /// Longest line that may come now.
    fn max_line_bytes(&self) -> usize {
        let asked_for = self.pending.values().map(|it| it.max_bytes).max();
        asked_for.unwrap_or(0).max(self.settings.max_line_bytes)
    }

    /// Passes over what is of no use, unless it is too much.
    fn stray(&mut self, bytes: usize, why: LinkError) -> Result<(), LinkError> {
        let max_bytes = match self.settings.strays {
            Strays::Refused => return Err(why),
            Strays::Skipped { max_bytes } => max_bytes,
        };
        self.stray_bytes += bytes;
        if self.stray_bytes > max_bytes {
            return Err(LinkError::Stray { max_bytes });
        }
        Ok(())
    }

    fn take(&mut self, mut line: Vec<u8>) -> Result<(), LinkError> {
        self.heard.now();
        // What stands before the sentinel is the rest of an earlier conversation.
        if let Some(at) = line.iter().rposition(|&b| b == SENTINEL) {
            line.drain(..=at);
        }
        match classify(&line) {
            Ok(Kind::Event(event)) => {
                (self.on_event)(event);
                return self.unasked(line.len());
            }
            Ok(Kind::Greeting) => return self.unasked(line.len()),
            Ok(Kind::Reply(id)) => match id.and_then(|id| self.pending.remove(&id)) {
                // The caller may have gone; then the reply is out of the way.
                Some(awaited) => {
                    self.stray_bytes = 0;
                    drop(awaited.reply.send(line));
                }
                None => {
                    tracing::trace!(line = excerpt(&line), "a reply that nobody waits for");
                    return self.unasked(line.len());
                }
            },
            Err(why) => {
                tracing::trace!(line = excerpt(&line), "a line that is not understood");
                return self.stray(line.len().max(STRAY_LINE_BYTES), why);
            }
        }
        Ok(())
    }

    /// A line that is understood, and that nothing asked for: the late reply of a command that was forgotten.
    fn unasked(&mut self, bytes: usize) -> Result<(), LinkError> {
        match self.settings.strays {
            Strays::Refused => Ok(()),
            Strays::Skipped { max_bytes } => {
                self.stray(bytes.max(STRAY_LINE_BYTES), LinkError::Stray { max_bytes })
            }
        }
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
