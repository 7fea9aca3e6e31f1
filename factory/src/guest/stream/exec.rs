//! Commands with their streams open.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::frame::MAX_PAYLOAD_BYTES;
use super::handle::Stream;
use super::link::StreamLink;
use super::mux::Incoming;
use crate::guest::exec::{GRACE, refuse_unspeakable};
use crate::guest::exec_report::SpawnFailure;
use crate::guest::{
    ExecError, ExecRequest, ExecStream, GuestError, StreamEnd, StreamInput, StreamOutput,
    StreamRequest,
};

/// Pieces that wait for their taker beside the stream's window.
const OUTPUT_PIECES: usize = 2;
/// Orders that wait to be looked at.
const INPUT_ORDERS: usize = 16;
/// Bytes for standard input that wait for the command to read, beside the stream's window. Up to so many are taken
/// out of the way of a resize or a cancel behind them.
const WAITING_BYTES: usize = 256 * 1024;

/// `OPEN` of a command.
#[derive(Serialize)]
struct Open<'a> {
    exec: Command<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Command<'a> {
    argv: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    timeout_ms: u64,
    stdin: bool,
    tty: Option<Tty>,
}

#[derive(Serialize)]
struct Tty {
    rows: u16,
    cols: u16,
}

/// `RESULT` of a command.
#[derive(Deserialize)]
struct Outcome {
    error: Option<SpawnFailure>,
    spawn_error: Option<SpawnFailure>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    #[serde(default)]
    timed_out: bool,
}

/// What is needed to tell how a command ended.
struct Facts {
    argv0: String,
    timeout: Duration,
    /// When the guest should have ended it.
    deadline: Instant,
    stdin: bool,
}

impl StreamLink {
    /// Runs a command with its streams open.
    pub(crate) fn exec(&self, request: &StreamRequest) -> Result<ExecStream, ExecError> {
        let StreamRequest {
            argv,
            env,
            cwd,
            user,
            stdin,
            tty,
            timeout,
            ..
        } = request;
        let (cwd, user) = (cwd.as_deref(), user.as_deref());
        refuse_unspeakable(argv, env, cwd, user)?;
        let timeout = timeout
            .unwrap_or(ExecRequest::LONGEST)
            .min(ExecRequest::LONGEST);
        let exec = Command {
            argv,
            env,
            cwd,
            user,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            stdin: *stdin,
            tty: tty.map(|size| Tty {
                rows: size.rows,
                cols: size.columns,
            }),
        };
        let open = serde_json::to_vec(&Open { exec }).map_err(|error| ExecError::Invalid {
            reason: error.to_string(),
        })?;
        if open.len() > MAX_PAYLOAD_BYTES {
            let reason = format!(
                "argv and env have {} bytes and a streaming command takes {MAX_PAYLOAD_BYTES}",
                open.len()
            );
            return Err(ExecError::Invalid { reason });
        }
        let stream = self.open(open)?;
        let facts = Facts {
            argv0: argv.first().cloned().unwrap_or_default(),
            timeout,
            deadline: Instant::now() + timeout + GRACE,
            stdin: *stdin,
        };
        let (input, orders) = mpsc::channel(INPUT_ORDERS);
        let (pieces, output) = mpsc::channel(OUTPUT_PIECES);
        tokio::spawn(run(stream, facts, orders, pieces));
        Ok(ExecStream { input, output })
    }
}

/// Carries a command's streams until it has ended, or nobody takes what it writes any more.
async fn run(
    stream: Stream,
    facts: Facts,
    orders: mpsc::Receiver<StreamInput>,
    pieces: mpsc::Sender<StreamOutput>,
) {
    let ended = tokio::select! {
        // A stream that was dropped has lost its input, too: that is no end of the input.
        biased;
        () = pieces.closed() => return,
        ended = carry_out(&stream, &facts, &pieces) => ended,
        () = carry_in(&stream, &facts, orders) => return,
        () = tokio::time::sleep_until(facts.deadline) => Err(ExecError::Guest(GuestError::Silent {
            command: "the end of a command",
            after: facts.timeout + GRACE,
        })),
    };
    // What has not ended in the guest is cancelled there, whether anybody takes the last word or not.
    drop(stream);
    drop(pieces.send(StreamOutput::Ended(ended)).await);
}

/// From the command. Nothing is taken from the stream before there is room for it.
async fn carry_out(
    stream: &Stream,
    facts: &Facts,
    pieces: &mpsc::Sender<StreamOutput>,
) -> Result<StreamEnd, ExecError> {
    loop {
        // Closed: the caller notices, too, and has the last word.
        let Ok(room) = pieces.reserve().await else {
            return std::future::pending().await;
        };
        match stream.next().await {
            Incoming::Data { channel: 1, bytes } => room.send(StreamOutput::Stdout(bytes)),
            Incoming::Data { bytes, .. } => room.send(StreamOutput::Stderr(bytes)),
            Incoming::Result(result) => return facts.end(&result),
            Incoming::Lost(why) => return Err(why.into()),
        }
    }
}

/// To the command. Never ends by itself: what the command says is what counts.
async fn carry_in(stream: &Stream, facts: &Facts, mut orders: mpsc::Receiver<StreamInput>) {
    let mut waiting = VecDeque::new();
    let mut waiting_bytes = 0;
    let mut has_ended = false;
    loop {
        while let Some(bytes) = waiting.pop_front() {
            let length = Bytes::len(&bytes);
            if let Err(bytes) = stream.give(bytes) {
                waiting.push_front(bytes);
                break;
            }
            waiting_bytes -= length;
        }
        if has_ended && waiting.is_empty() {
            stream.end();
        }
        let order = tokio::select! {
            order = orders.recv(), if waiting_bytes < WAITING_BYTES => order,
            () = stream.room(), if !waiting.is_empty() => continue,
        };
        match order {
            Some(StreamInput::Bytes(bytes)) if facts.stdin && !has_ended && !bytes.is_empty() => {
                waiting_bytes += bytes.len();
                waiting.push_back(bytes);
            }
            // Standard input is empty, or has ended.
            Some(StreamInput::Bytes(_)) => {}
            Some(StreamInput::Resize(size)) => stream.resize(size),
            Some(StreamInput::Cancel) => stream.cancel(),
            Some(StreamInput::End) => has_ended = true,
            // Nobody will order anything any more.
            None => {
                for bytes in waiting {
                    stream.send(bytes).await;
                }
                stream.end();
                return std::future::pending().await;
            }
        }
    }
}

impl Facts {
    fn end(&self, result: &[u8]) -> Result<StreamEnd, ExecError> {
        let outcome: Outcome =
            serde_json::from_slice(result).map_err(|error| GuestError::Proof {
                step: "a streaming command",
                reason: error.to_string(),
            })?;
        if let Some(failure) = outcome.error {
            return Err(ExecError::Guest(GuestError::Refused {
                command: "a streaming command",
                reason: failure.message,
            }));
        }
        if let Some(failure) = outcome.spawn_error {
            return Err(ExecError::Spawn {
                argv0: self.argv0.clone(),
                reason: failure.message,
                errno: failure.errno,
            });
        }
        if outcome.timed_out {
            let after = self.timeout;
            // What it wrote went out as it came.
            let output = Box::default();
            return Err(ExecError::Deadline { after, output });
        }
        Ok(StreamEnd {
            exit_code: outcome.exit_code,
            signal: outcome.signal,
        })
    }
}
