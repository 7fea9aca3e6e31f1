//! Commands with their streams open.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use vmint_guest_protocol::channel;
use vmint_guest_protocol::message::OPEN_MAX_BYTES;
use vmint_guest_protocol::names::{codes, ended_by};
use vmint_guest_protocol::{KILL_PATIENCE, PROCESSES_MAX};

use super::agent::Agent;
use super::error::{Refusal, failed};
use super::link::{Incoming, Opening, Stream};
use super::{
    ExecError, ExecRequest, ExecStream, GuestError, PartialOutput, StreamEnd, StreamInput,
    StreamOutput, StreamRequest, WindowSize,
};

/// How much longer than the command's own deadline its end is waited for: the guest kills it, and says so at last when it
/// does not go. That answer has some time for its way.
pub(super) const GRACE: Duration = KILL_PATIENCE.saturating_add(Duration::from_secs(10));
/// Longest single argument or variable that Linux passes to a program (`MAX_ARG_STRLEN`, 32 pages).
const MAX_ARGUMENT_BYTES: usize = 131_071;
/// Pieces that wait for their taker beside the stream's window.
const OUTPUT_PIECES: usize = 2;
/// Orders that wait to be looked at.
const INPUT_ORDERS: usize = 16;
/// Bytes for standard input that wait for the command to read, beside the stream's window. Up to so many are taken
/// out of the way of a resize or a cancel behind them.
const WAITING_BYTES: usize = 256 * 1024;
/// What a process can exit with, and be ended by, on Linux.
const EXIT_CODES: RangeInclusive<i32> = 0..=255;
const SIGNALS: RangeInclusive<i32> = 1..=64;
/// The signal that ends a process, whatever it does.
const SIGKILL: i32 = 9;
const STEP: &str = "a command";

/// A command as the guest reads it.
#[derive(Serialize)]
pub(super) struct Command<'a> {
    pub(super) argv: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) env: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    stdin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tty: Option<Tty>,
    #[serde(skip_serializing_if = "is_true")]
    bound_env: bool,
}

#[derive(Serialize)]
struct Tty {
    rows: u16,
    columns: u16,
}

/// What it is when it is not said.
fn is_true(value: &bool) -> bool {
    *value
}

impl<'a> Command<'a> {
    /// A command that is collected.
    pub(super) fn buffered(request: &'a ExecRequest) -> Result<Self, ExecError> {
        let ExecRequest {
            argv,
            env,
            cwd,
            user,
            stdin,
            timeout,
            max_output_bytes: _,
        } = request;
        let command = Self {
            argv,
            env,
            cwd: cwd.as_deref(),
            user: user.as_deref(),
            timeout_ms: Some(milliseconds(bounded(*timeout))),
            stdin: !stdin.is_empty(),
            tty: None,
            bound_env: true,
        };
        command.refuse_unspeakable()?;
        Ok(command)
    }

    /// A command with its streams open, with a timeout or none.
    pub(super) fn streaming(
        request: &'a StreamRequest,
        timeout: Option<Duration>,
    ) -> Result<Self, ExecError> {
        let tty = |WindowSize { rows, columns }| Tty { rows, columns };
        let command = Self {
            argv: &request.argv,
            env: &request.env,
            cwd: request.cwd.as_deref(),
            user: request.user.as_deref(),
            timeout_ms: timeout.map(milliseconds),
            stdin: request.stdin,
            tty: request.tty.map(tty),
            bound_env: request.bound_env,
        };
        command.refuse_unspeakable()?;
        Ok(command)
    }

    /// The object that opens its stream.
    pub(super) fn object(self) -> Result<Vec<u8>, ExecError> {
        #[derive(Serialize)]
        struct Open<'a> {
            exec: Command<'a>,
        }
        let object = serde_json::to_vec(&Open { exec: self }).map_err(|error| invalid(&error))?;
        if object.len() > OPEN_MAX_BYTES {
            let bytes = object.len();
            return Err(invalid(&format!(
                "argv and env have {bytes} bytes, and a command takes {OPEN_MAX_BYTES}"
            )));
        }
        Ok(object)
    }

    /// Refuses what Linux would not pass to a program, before the guest is asked.
    fn refuse_unspeakable(&self) -> Result<(), ExecError> {
        let Self {
            argv,
            env,
            cwd,
            user,
            ..
        } = self;
        if argv.first().is_none_or(String::is_empty) {
            return Err(invalid(&"argv names no program"));
        }
        let is_wrong = |name: &&String| name.is_empty() || name.contains('=');
        if let Some(name) = env.keys().find(is_wrong) {
            return Err(invalid(&format!(
                "{name:?} is not a name of an environment variable"
            )));
        }
        let texts = || {
            argv.iter()
                .chain(env.keys())
                .chain(env.values())
                .map(String::as_str)
                .chain(*cwd)
                .chain(*user)
        };
        if texts().any(|text| text.contains('\0')) {
            return Err(invalid(
                &"an argument, a variable, the directory or the user holds a NUL byte",
            ));
        }
        let longest = texts().map(str::len).max().unwrap_or(0);
        if longest > MAX_ARGUMENT_BYTES {
            return Err(invalid(&format!(
                "an argument or a variable has {longest} bytes; Linux takes {MAX_ARGUMENT_BYTES}"
            )));
        }
        Ok(())
    }
}

fn invalid(reason: &dyn std::fmt::Display) -> ExecError {
    let reason = reason.to_string();
    ExecError::Invalid { reason }
}

/// A timeout within the longest that any command has.
pub(super) fn bounded(timeout: Option<Duration>) -> Duration {
    let longest = ExecRequest::LONGEST;
    timeout.unwrap_or(longest).min(longest)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The `RESULT` of a process.
#[derive(Deserialize)]
struct Ended {
    exit_code: Option<i32>,
    signal: Option<i32>,
    ended_by: Option<String>,
    /// Of a process that was attached to.
    started_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
}

/// What is needed to say how a command ended.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) argv0: String,
    /// The command's timeout; a process that was attached to has its own.
    pub(super) timeout: Option<Duration>,
    /// Whether it is a process that was attached to.
    pub(super) is_attached: bool,
}

impl Facts {
    pub(super) fn end(&self, result: &[u8]) -> Result<StreamEnd, ExecError> {
        let ended: Ended = match Refusal::or_result(STEP, result)? {
            Ok(ended) => ended,
            Err(refusal) => return self.refused(refusal),
        };
        if self.is_attached && ended.ended_at_ms.is_none() {
            // It runs on: this stream was left.
            return Err(GuestError::Closed.into());
        }
        let signal = match ended.ended_by.as_deref() {
            Some(ended_by::TIMEOUT) => {
                let ran = ended.ended_at_ms.zip(ended.started_at_ms);
                let ran =
                    ran.and_then(|(end, start)| u64::try_from(end.saturating_sub(start)).ok());
                let ran = Duration::from_millis(ran.unwrap_or_default());
                return Err(ExecError::Deadline {
                    after: self.timeout.unwrap_or(ran),
                    output: Box::default(),
                });
            }
            Some(ended_by::KILLED | ended_by::AGENT_LOST) => ended.signal.or(Some(SIGKILL)),
            _ => ended.signal,
        };
        // A guest that says another number says nothing.
        Ok(StreamEnd {
            exit_code: ended.exit_code.filter(|code| EXIT_CODES.contains(code)),
            signal: signal.filter(|signal| SIGNALS.contains(signal)),
        })
    }

    fn refused(&self, refusal: Refusal) -> Result<StreamEnd, ExecError> {
        Err(refusal.of_command(&self.argv0))
    }
}

impl Refusal {
    /// Why a command did not run.
    pub(super) fn of_command(self, argv0: &str) -> ExecError {
        match self.code.as_str() {
            codes::NOT_STARTED => ExecError::Spawn {
                argv0: argv0.to_owned(),
                reason: self.message,
                errno: self.errno,
            },
            codes::TOO_MANY => ExecError::TooMany {
                limit: PROCESSES_MAX,
            },
            codes::ARGUMENT => invalid(&self.message),
            _ => ExecError::Guest(self.of(STEP)),
        }
    }
}

impl Agent {
    /// Runs a command with its streams open.
    pub(crate) fn exec_stream(&self, request: &StreamRequest) -> Result<ExecStream, ExecError> {
        let timeout = bounded(request.timeout);
        let opening = Opening {
            object: Command::streaming(request, Some(timeout))?.object()?,
            ..Opening::default()
        };
        let stream = self.link.open(opening)?;
        let facts = Facts {
            argv0: request.argv.first().cloned().unwrap_or_default(),
            timeout: Some(timeout),
            is_attached: false,
        };
        let input = if request.stdin {
            Input::Own
        } else {
            Input::None
        };
        Ok(carried(stream, facts, input))
    }
}

/// What bytes for standard input are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// There is no standard input.
    None,
    /// It ends with the stream.
    Own,
    /// It is shared with others, and ends when one of them says so.
    Shared,
}

/// Carries a stream between the guest and a caller's channels, in a task of its own.
pub(super) fn carried(stream: Stream, facts: Facts, input: Input) -> ExecStream {
    let (orders, inbox) = mpsc::channel(INPUT_ORDERS);
    let (pieces, output) = mpsc::channel(OUTPUT_PIECES);
    tokio::spawn(carry(stream, facts, input, inbox, pieces));
    ExecStream {
        input: orders,
        output,
    }
}

/// Carries a command's streams until it has ended, or its caller is gone.
async fn carry(
    stream: Stream,
    facts: Facts,
    input: Input,
    orders: mpsc::Receiver<StreamInput>,
    pieces: mpsc::Sender<StreamOutput>,
) {
    // When the guest should have ended it. A process that was attached to may run for ever.
    let longest = facts.timeout.map(|timeout| timeout + GRACE);
    let too_late = async {
        match longest {
            Some(longest) => tokio::time::sleep_until(Instant::now() + longest).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        // A stream that was dropped has lost its input, too: that is no end of the input.
        biased;
        () = pieces.closed() => return,
        ended = carry_out(&stream, &facts, &pieces) => ended,
        () = carry_in(&stream, input, orders) => return,
        () = too_late => Err(silent(longest.unwrap_or_default()).into()),
    };
    // What has not ended in the guest is cancelled there, whether the last word is taken or not.
    drop(stream);
    drop(pieces.send(StreamOutput::Ended(ended)).await);
}

pub(super) fn silent(after: Duration) -> GuestError {
    GuestError::Silent {
        command: "the end of a command",
        after,
    }
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
        match stream.next().await.map_err(|why| failed(STEP, why))? {
            Incoming::Data {
                channel: channel::OUTPUT,
                bytes,
            } => room.send(StreamOutput::Stdout(bytes)),
            Incoming::Data { bytes, .. } => room.send(StreamOutput::Stderr(bytes)),
            Incoming::Result(result) => return facts.end(&result),
        }
    }
}

/// To the command. Never ends by itself: what the command says is what counts.
async fn carry_in(stream: &Stream, input: Input, mut orders: mpsc::Receiver<StreamInput>) {
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
            Some(StreamInput::Bytes(_) | StreamInput::End) if input == Input::None => {}
            Some(StreamInput::Bytes(bytes)) if !has_ended && !bytes.is_empty() => {
                waiting_bytes += bytes.len();
                waiting.push_back(bytes);
            }
            Some(StreamInput::Bytes(_)) => {}
            Some(StreamInput::Resize(size)) => stream.resize(size),
            Some(StreamInput::End) => has_ended = true,
            // Nothing will be ordered any more.
            None => {
                for bytes in waiting {
                    stream.send(bytes).await;
                }
                if input == Input::Own {
                    stream.end();
                }
                return std::future::pending().await;
            }
        }
    }
}

/// What a command wrote, up to a limit for each stream.
pub(super) struct Collected {
    pub(super) kept: PartialOutput,
    max_bytes: usize,
    /// Whether the newest of what finds no room is of use.
    wants_newest: bool,
    /// The newest bytes of both streams that found no room above, for an error.
    surplus: [Vec<u8>; 2],
}

impl Collected {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            kept: PartialOutput::default(),
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            wants_newest: true,
            surplus: [Vec::new(), Vec::new()],
        }
    }

    /// For what has no more than so much of each stream.
    pub(super) fn up_to(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            wants_newest: false,
            ..Self::new(0)
        }
    }

    fn take(&mut self, number: u8, bytes: &[u8]) {
        let [of_output, of_error] = &mut self.surplus;
        let (kept, surplus) = match number {
            channel::OUTPUT => (&mut self.kept.stdout, of_output),
            _ => (&mut self.kept.stderr, of_error),
        };
        let room = self.max_bytes.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        if self.wants_newest {
            surplus.extend_from_slice(&bytes[room..]);
        }
        // Twice as much, so that most bytes are moved once.
        if surplus.len() > 2 * PartialOutput::MAX_BYTES {
            surplus.drain(..surplus.len() - PartialOutput::MAX_BYTES);
        }
        self.kept.truncated |= bytes.len() > room;
    }

    /// Takes all that comes from a stream, up to its result. What is beyond the limit is dropped.
    pub(super) async fn all(&mut self, stream: &Stream) -> Result<Bytes, GuestError> {
        loop {
            match stream.next().await.map_err(|why| failed(STEP, why))? {
                Incoming::Data { channel, bytes } => self.take(channel, &bytes),
                Incoming::Result(result) => return Ok(result),
            }
        }
    }

    /// The newest part of all that was written, what found no room included.
    pub(super) fn newest(self) -> Box<PartialOutput> {
        let (mut all, [of_output, of_error]) = (self.kept, self.surplus);
        all.stdout.extend_from_slice(&of_output);
        all.stderr.extend_from_slice(&of_error);
        Box::new(PartialOutput::newest(all.stdout, all.stderr, all.truncated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_output_is_the_newest_however_much_was_written() {
        const LIMIT: u64 = 1 << 20;
        let pieces = 40;
        let mut collected = Collected::new(LIMIT);
        for piece in 0..pieces {
            collected.take(channel::OUTPUT, &[piece; 100_000]);
        }
        collected.take(channel::ERROR, b"err");
        assert_eq!(collected.kept.stdout.len(), 1 << 20);
        let surplus = collected.surplus[0].len();
        assert!(surplus <= 2 * PartialOutput::MAX_BYTES, "{surplus}");
        let newest = collected.newest();
        assert!(newest.truncated && newest.stderr == b"err");
        assert!(newest.stdout.len() > PartialOutput::MAX_BYTES - 4);
        assert_eq!(newest.stdout.last(), Some(&(pieces - 1)));
    }
}
