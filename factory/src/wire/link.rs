//! The actor that owns a socket, and the handles to it.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::line::LineReader;

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
    /// A command was not answered in time; the link is given up.
    #[error("no answer within {}", crate::text::duration(*.after))]
    Deadline {
        /// How long it was waited for.
        after: Duration,
    },
    /// The other side answered with an error.
    #[error("{0}")]
    Refused(String),
}

/// An event that the monitor reported by itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    /// Its name.
    #[serde(rename = "event")]
    pub(crate) name: String,
    /// Its data.
    #[serde(default)]
    pub(crate) data: serde_json::Value,
}

/// How a link is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSettings {
    /// Longest line taken.
    pub(crate) max_line_bytes: usize,
    /// Whether a line that nobody asked for ends the link. The monitor never sends one; the agent of a restored
    /// guest may still have the rest of the template's conversation to say.
    pub(crate) strict: bool,
}

struct Request {
    line: Vec<u8>,
    /// Ignore lines until one that begins with the sentinel.
    delimited: bool,
    after: Duration,
    reply: oneshot::Sender<Result<Vec<u8>, LinkError>>,
}

/// A handle to a connection. The connection ends with its last handle.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    requests: mpsc::Sender<Request>,
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
        let (read, write) = socket.into_split();
        let (requests, inbox) = mpsc::channel(QUEUED_REQUESTS);
        let (verdict_sender, verdict) = watch::channel(None);
        let lines = LineReader::new(read, settings.max_line_bytes);
        let actor = Actor { lines, write, on_event: Box::new(on_event), strict: settings.strict };
        tokio::spawn(async move {
            let why = actor.run(inbox).await;
            verdict_sender.send_replace(Some(why));
        });
        Self { requests, verdict }
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// [`LinkError::Deadline`] when the reply takes longer than `after` (the link is dead then), the other side's
    /// own refusal, or why the link is dead.
    ///
    /// # Cancel safety
    /// Safe: when the future is dropped, the reply is read and thrown away.
    pub(crate) async fn command<T: DeserializeOwned>(
        &self,
        command: &impl serde::Serialize,
        delimited: bool,
        after: Duration,
    ) -> Result<T, LinkError> {
        let mut line = serde_json::to_vec(command).map_err(|e| LinkError::Malformed { reason: e.to_string() })?;
        if delimited {
            line.insert(0, SENTINEL);
        }
        line.push(b'\n');
        let (reply, answer) = oneshot::channel();
        let request = Request { line, delimited, after, reply };
        if self.requests.send(request).await.is_err() {
            return Err(self.why_dead().await);
        }
        match answer.await {
            Ok(outcome) => parse_reply(&outcome?),
            Err(_) => Err(self.why_dead().await),
        }
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
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) -> LinkError {
        loop {
            let step = tokio::select! {
                request = inbox.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return LinkError::Closed,
                },
                line = self.lines.next() => line.and_then(|line| self.unasked(&line)),
            };
            if let Err(why) = step {
                return why;
            }
        }
    }

    async fn serve(&mut self, request: Request) -> Result<(), LinkError> {
        let Request { line, delimited, after, reply } = request;
        let deadline = Instant::now() + after;
        let outcome = match tokio::time::timeout_at(deadline, self.exchange(&line, delimited)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LinkError::Deadline { after }),
        };
        let dead = outcome.as_ref().err().cloned();
        // The caller may have gone; then nobody wants the reply, and it is out of the way.
        drop(reply.send(outcome));
        dead.map_or(Ok(()), Err)
    }

    async fn exchange(&mut self, line: &[u8], delimited: bool) -> Result<Vec<u8>, LinkError> {
        self.write.write_all(line).await.map_err(|e| LinkError::Io(e.kind()))?;
        loop {
            let mut line = self.lines.next().await?;
            if delimited {
                // What stands before the sentinel is the rest of an earlier conversation.
                match line.iter().rposition(|&b| b == SENTINEL) {
                    Some(at) => drop(line.drain(..=at)),
                    None => continue,
                }
            }
            match classify(&line)? {
                Kind::Reply => return Ok(line),
                Kind::Event(event) => (self.on_event)(event),
                Kind::Greeting => {}
            }
        }
    }

    fn unasked(&mut self, line: &[u8]) -> Result<(), LinkError> {
        match classify(line) {
            Ok(Kind::Event(event)) => (self.on_event)(event),
            Ok(Kind::Greeting) => {}
            Ok(Kind::Reply) if self.strict => {
                return Err(LinkError::Malformed { reason: "a reply that nobody asked for".to_owned() });
            }
            Err(why) if self.strict => return Err(why),
            Ok(Kind::Reply) | Err(_) => tracing::trace!(line = excerpt(line), "a line of an earlier conversation"),
        }
        Ok(())
    }
}

enum Kind {
    Reply,
    Event(Event),
    Greeting,
}

/// Tells replies, events and the monitor's greeting apart, whatever else they hold.
fn classify(line: &[u8]) -> Result<Kind, LinkError> {
    #[derive(Deserialize)]
    struct Keys {
        #[serde(rename = "return")]
        return_: Option<serde::de::IgnoredAny>,
        error: Option<serde::de::IgnoredAny>,
        event: Option<serde::de::IgnoredAny>,
        #[serde(rename = "QMP")]
        greeting: Option<serde::de::IgnoredAny>,
    }
    let malformed = |e: serde_json::Error| LinkError::Malformed { reason: format!("{e}: {}", excerpt(line)) };
    let keys: Keys = serde_json::from_slice(line).map_err(malformed)?;
    if keys.event.is_some() {
        return Ok(Kind::Event(serde_json::from_slice(line).map_err(malformed)?));
    }
    if keys.greeting.is_some() {
        return Ok(Kind::Greeting);
    }
    if keys.return_.is_some() || keys.error.is_some() {
        return Ok(Kind::Reply);
    }
    // `{"return": null}` does not exist in either protocol, so what is left is nothing we know.
    Err(LinkError::Malformed { reason: excerpt(line) })
}

fn parse_reply<T: DeserializeOwned>(line: &[u8]) -> Result<T, LinkError> {
    #[derive(Deserialize)]
    struct Refusal {
        desc: String,
    }
    #[derive(Deserialize)]
    struct Reply<T> {
        #[serde(rename = "return")]
        return_: Option<T>,
        error: Option<Refusal>,
    }
    let reply: Reply<T> = serde_json::from_slice(line)
        .map_err(|e| LinkError::Malformed { reason: format!("{e}: {}", excerpt(line)) })?;
    match reply {
        Reply { error: Some(refusal), .. } => Err(LinkError::Refused(refusal.desc)),
        Reply { return_: Some(value), .. } => Ok(value),
        Reply { return_: None, error: None } => Err(LinkError::Malformed { reason: excerpt(line) }),
    }
}

/// The beginning of a line, for a message.
fn excerpt(line: &[u8]) -> String {
    const SHOWN_BYTES: usize = 120;
    let shown = &line[..line.len().min(SHOWN_BYTES)];
    let more = if line.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(shown).escape_debug())
}
