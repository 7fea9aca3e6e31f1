//! One command over one WebSocket, from the upgrade to the last frame.
//!
//! ```text
//!   client ── messages ──► take_input ──► command          client gone, or against the rules: the command is dropped
//!   client ◄── messages ── give_output ◄── command         command, sandbox or service ended: Status, close frame
//! ```
//!
//! What always holds: both directions wait for whoever is slow, and no more than a message of each is held; a client that
//! is gone drops the command, which kills it (a process that it was attached to lives on); the last things that any other
//! client gets are a `Status` and a close frame.

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::pin;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;
use vmint_cache::{CommandOutput, CommandStream, StreamInput};

use super::limits::{BODY_READ_TIMEOUT, LAST_WORDS_TIMEOUT, PING_INTERVAL};
use super::problem::Problem;
use super::seat::Seat;
use super::service::Service;
use super::stopping::Stopping;
use crate::remote::channel::{self, ERROR, STDERR, STDOUT, to_command};
use crate::remote::{Status, ToCommand};

type Sink = SplitSink<WebSocket, Message>;
type Messages = SplitStream<WebSocket>;

/// Close codes of RFC 6455.
mod close {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const GOING_AWAY: u16 = 1001;
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const TOO_BIG: u16 = 1009;
}

/// What a client asked for, and what is held for it.
pub(super) struct Session {
    command: CommandStream,
    /// Which streams the client wants; the others are read and thrown away.
    wants: Wants,
    /// Whether what runs is a process that lives on without this session.
    pub(super) outlives: bool,
    stopping: Stopping,
    /// The service waits for it when it stops.
    _running: Option<TaskTrackerToken>,
    /// The connection's seat, for as long as the WebSocket lives.
    seat: Option<Seat>,
}

/// The streams that a client wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// How a session ends.
enum End {
    /// The client is gone: there is nobody to tell.
    Gone,
    /// The client broke the rules.
    Broken(u16, String),
    /// There is no more to say than this.
    Told(u16, Status),
}

impl Session {
    /// One of a command that ends with it.
    pub(super) fn new(
        service: &Service,
        command: CommandStream,
        wants: Wants,
        seat: Option<Seat>,
    ) -> Self {
        Self {
            command,
            wants,
            outlives: false,
            stopping: service.stopping().clone(),
            _running: service.stopping().enter(),
            seat,
        }
    }

    /// Runs it to its end.
    ///
    /// # Cancel safety
    /// Dropped, the command is killed, or left to itself where it outlives the session, and the connection cut.
    pub(super) async fn run(mut self, socket: WebSocket) {
        if let Some(seat) = &self.seat {
            seat.wait_for_client();
        }
        let (mut sink, mut messages) = socket.split();
        let sandbox_ended = self.command.sandbox_ended();
        pin!(sandbox_ended);
        let end = self
            .exchange(&mut sink, &mut messages, sandbox_ended.as_mut())
            .await;
        // Whatever else happens, nothing runs on from here.
        drop(self.command);
        let is_unhurried = matches!(end, End::Told(close::NORMAL, _));
        let told = tell(&mut sink, &mut messages, end);
        pin!(told);
        if is_unhurried {
            // The client may still be reading what the command wrote, and takes its time.
            tokio::select! {
                biased;
                () = told.as_mut() => return,
                _ = sandbox_ended => {}
                () = self.stopping.begun() => {}
            }
        }
        if timeout(LAST_WORDS_TIMEOUT, told).await.is_err() {
            debug!("a client did not take how its command ended");
        }
    }

    async fn exchange(
        &mut self,
        sink: &mut Sink,
        messages: &mut Messages,
        sandbox_ended: impl Future<Output = &'static str>,
    ) -> End {
        let (input, wants, outlives) = (self.command.input(), self.wants, self.outlives);
        let taking = take_input(messages, input, wants);
        let giving = give_output(sink, &mut self.command, wants);
        let stopping = async {
            self.stopping.begun().await;
            // A command that works is waited for, as any request is; a terminal is not, nor what runs on without us.
            if !wants.tty && !outlives {
                std::future::pending::<()>().await;
            }
        };
        pin!(giving);
        tokio::select! {
            biased;
            end = giving.as_mut() => return end,
            end = taking => return end,
            () = stopping => return told(close::GOING_AWAY, &Problem::shutting_down()),
            _ = sandbox_ended => {}
        }
        // What the command still wrote, and why the sandbox ended, come by the same way, unless the client is slow.
        timeout(LAST_WORDS_TIMEOUT, giving)
            .await
            .unwrap_or(End::Gone)
    }
}

/// The first message of a client, which says what to run; `None` when the client is gone.
///
/// # Errors
/// It is too long, or nothing comes in time.
pub(super) async fn first_message(socket: &mut WebSocket) -> Option<Result<Bytes, Problem>> {
    let first = async {
        loop {
            return match socket.next().await? {
                Ok(Message::Text(text)) => Some(Ok(text.into())),
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
                Ok(Message::Close(_)) => None,
                Err(error) => match broken(error) {
                    End::Broken(_, why) => Some(Err(Problem::invalid(why))),
                    End::Gone | End::Told(..) => None,
                },
            };
        }
    };
    timeout(BODY_READ_TIMEOUT, first).await.unwrap_or_else(|_| {
        let limit = BODY_READ_TIMEOUT.as_secs();
        let why = format!("the first message did not arrive within {limit} s");
        Some(Err(Problem::invalid(why)))
    })
}

/// Says no to a client whose command does not begin.
pub(super) async fn refuse(socket: WebSocket, problem: &Problem) {
    let (mut sink, mut messages) = socket.split();
    let telling = tell(&mut sink, &mut messages, told(close::NORMAL, problem));
    if timeout(LAST_WORDS_TIMEOUT, telling).await.is_err() {
        debug!("a client did not take why its command did not begin");
    }
}

/// Passes the client's messages on; ends when the client does.
async fn take_input(
    messages: &mut Messages,
    input: mpsc::Sender<StreamInput>,
    wants: Wants,
) -> End {
    let mut has_ended = !wants.stdin;
    loop {
        let message = match messages.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return broken(error),
            None => return End::Gone,
        };
        let message = match message {
            Message::Binary(message) => message,
            // Clients without a type for bytes, Kubernetes' own in Python among them, send text: its bytes are what counts.
            Message::Text(message) => message.into(),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return End::Gone,
        };
        let next = match to_command(message) {
            Ok(ToCommand::Stdin(bytes)) if !has_ended => StreamInput::Bytes(bytes),
            Ok(ToCommand::StdinEnd) if !has_ended => {
                has_ended = true;
                StreamInput::End
            }
            Ok(ToCommand::Resize(size)) if wants.tty => StreamInput::Resize(size),
            Ok(_) => continue,
            Err(violation) => return End::Broken(close::PROTOCOL, violation.to_string()),
        };
        // A command that takes no more input may still write.
        has_ended |= input.send(next).await.is_err();
    }
}

/// Passes the command's output on; ends when the command does, or when the client is gone.
///
/// A ping is for that: a client whose input waits for the command is not listened to, but cannot be written to once it is
/// gone. One that does not answer may be somebody who reads page by page, and stays.
async fn give_output(sink: &mut Sink, command: &mut CommandStream, wants: Wants) -> End {
    // As Kubernetes does: an empty message says that the command runs.
    let lowest = match wants {
        Wants { stdout: true, .. } => STDOUT,
        Wants { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    if send(sink, lowest, b"").await.is_err() {
        return End::Gone;
    }
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let output = tokio::select! {
            output = command.next() => output,
            _ = pings.tick() => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return End::Gone;
                }
                continue;
            }
        };
        let sent = match output {
            CommandOutput::Stdout(bytes) if wants.stdout => send(sink, STDOUT, &bytes).await,
            CommandOutput::Stderr(bytes) if wants.stderr => send(sink, STDERR, &bytes).await,
            CommandOutput::Stdout(_) | CommandOutput::Stderr(_) => Ok(()),
            CommandOutput::Ended(Ok(end)) => return End::Told(close::NORMAL, Status::ended(end)),
            CommandOutput::Ended(Err(error)) => {
                let code = match &error {
                    vmint_cache::SandboxExecError::Ended(_) => close::GOING_AWAY,
                    _ => close::NORMAL,
                };
                return told(code, &Problem::from(error));
            }
        };
        if sent.is_err() {
            return End::Gone;
        }
    }
}

async fn send(sink: &mut Sink, to: u8, bytes: &[u8]) -> Result<(), axum::Error> {
    sink.send(Message::Binary(channel::message(to, bytes)))
        .await
}

fn told(code: u16, problem: &Problem) -> End {
    End::Told(code, Status::failed(problem))
}

/// A message that could not be read.
fn broken(error: axum::Error) -> End {
    use tokio_tungstenite::tungstenite::Error;
    let error = error.into_inner();
    match error.downcast_ref::<Error>() {
        Some(Error::Capacity(limit)) => End::Broken(close::TOO_BIG, limit.to_string()),
        Some(Error::Protocol(wrong)) => End::Broken(close::PROTOCOL, wrong.to_string()),
        _ => End::Gone,
    }
}

/// Says how it ended, and waits until the client has closed: what it had not read when the connection ends it may lose.
async fn tell(sink: &mut Sink, messages: &mut Messages, end: End) {
    let (code, reason, status) = match end {
        End::Gone => return,
        End::Broken(code, reason) => (code, reason, None),
        End::Told(code, status) => (code, String::new(), Some(status)),
    };
    if let Some(status) = status
        && send(sink, ERROR, &status.to_json()).await.is_err()
    {
        return;
    }
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    if sink.send(Message::Close(Some(frame))).await.is_err() {
        return;
    }
    // An error is an end, too.
    while let Some(Ok(_)) = messages.next().await {}
}
