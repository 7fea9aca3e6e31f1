//! A command or a process of a sandbox, live: its output as it is made, and standard input as it comes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, stderr, stdin, stdout};
use tokio::signal::unix::Signal;
use tokio_tungstenite::tungstenite::Message;

use super::exec::{REFUSED, SIGNALLED, failure_code};
use crate::cli::client::ClientError;
use crate::cli::error::CliError;
use crate::cli::open::Socket;
use crate::cli::output::{Output, print_bytes};
use crate::cli::terminal::{self, Detach, Raw};
use crate::plain::plain;
use crate::remote::channel::{STDIN, from_command, message, resize, stdin_end};
use crate::remote::status::Said;
use crate::remote::{FromCommand, Status};

/// What is read of standard input at once.
const INPUT_BYTES: usize = 32 << 10;

/// What this side has for a command.
pub(super) struct Live {
    pub(super) output: Output,
    /// Whether standard input is passed on.
    pub(super) input: bool,
    /// Whether standard input that is empty from the start ends the command's, too: `/dev/null` may be there unasked.
    pub(super) empty_is_end: bool,
    /// The terminal's size at the start, where the command does not have it yet.
    pub(super) resize: bool,
    /// Changes of the terminal's size.
    pub(super) sizes: Option<Signal>,
    /// The terminal, where every key goes to the command.
    pub(super) raw: Option<Raw>,
    /// The keys that leave a process to itself.
    pub(super) detach: Option<Detach>,
}

/// How a command was left.
enum Left {
    /// With its end.
    Ended(Said),
    /// By a signal to this program.
    Signalled(i32),
    /// By the keys for that.
    Detached,
}

impl Live {
    /// Passes everything on until the command ends or is left. Returns the exit code.
    pub(super) async fn run(self, socket: Socket) -> Result<u8, CliError> {
        let Self {
            output,
            input,
            empty_is_end,
            resize,
            sizes,
            raw,
            detach,
        } = self;
        let (sink, messages) = socket.split();
        let feed = Feed {
            sink,
            input,
            has_end: empty_is_end,
            sizes,
            detach,
        };
        let left = tokio::select! {
            biased;
            signal = signalled(raw) => Left::Signalled(signal),
            said = receive(messages, output) => Left::Ended(said?),
            () = feed.run(resize) => Left::Detached,
        };
        match left {
            Left::Signalled(signal) => Ok(u8::try_from(SIGNALLED + signal).unwrap_or(REFUSED)),
            Left::Detached => Ok(0),
            Left::Ended(Said::Exited(code)) => Ok(u8::try_from(code & 0xff).unwrap_or(REFUSED)),
            Left::Ended(Said::Failed {
                code,
                message,
                errno,
            }) => {
                if !output.json {
                    eprintln!("vmint: {} ({code})", plain(&message));
                }
                Ok(failure_code(&code, errno))
            }
        }
    }
}

/// Holds the terminal for as long as it is waited for.
async fn signalled(raw: Option<Raw>) -> i32 {
    match raw {
        Some(mut raw) => raw.signalled().await,
        None => std::future::pending().await,
    }
}

/// Writes what the command writes, until it has ended.
async fn receive(mut messages: SplitStream<Socket>, output: Output) -> Result<Said, CliError> {
    let (mut out, mut err) = (stdout(), stderr());
    loop {
        let lost = |reason: String| {
            CliError::from(ClientError::Lost {
                reason: format!("before the command ended: {reason}"),
            })
        };
        let bytes = match messages.next().await {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map(|frame| frame.to_string());
                return Err(lost(reason.unwrap_or_else(|| "closed".to_owned())));
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(lost(error.to_string())),
            None => return Err(lost("closed".to_owned())),
        };
        match from_command(bytes) {
            FromCommand::Stdout(bytes) if output.json => print_piece("stdout", &bytes)?,
            FromCommand::Stderr(bytes) if output.json => print_piece("stderr", &bytes)?,
            FromCommand::Stdout(bytes) => {
                write(&mut out, &bytes, "cannot write to standard output").await?;
            }
            FromCommand::Stderr(bytes) => {
                write(&mut err, &bytes, "cannot write to standard error").await?;
            }
            FromCommand::Status(json) => {
                let status: Status = serde_json::from_slice(&json)
                    .map_err(|error| lost(format!("its status is broken: {error}")))?;
                if output.json {
                    print_line(&json!({ "status": status }))?;
                }
                return Ok(status.said());
            }
            FromCommand::Nothing => {}
        }
    }
}

/// A piece of output as an object on a line of its own.
fn print_piece(name: &str, bytes: &[u8]) -> Result<(), CliError> {
    print_line(&match std::str::from_utf8(bytes) {
        Ok(text) => json!({ name: text }),
        Err(_) => json!({ format!("{name}_b64"): BASE64_STANDARD.encode(bytes) }),
    })
}

fn print_line(json: &Value) -> Result<(), CliError> {
    print_bytes(&[json.to_string().as_bytes(), b"\n"])
}

async fn write(
    out: &mut (impl AsyncWrite + Unpin),
    bytes: &Bytes,
    what: &'static str,
) -> Result<(), CliError> {
    let written = async {
        out.write_all(bytes).await?;
        out.flush().await
    };
    let written = written.await;
    written.map_err(|source| CliError::Stream { what, source })
}

/// What goes to the command.
struct Feed {
    sink: SplitSink<Socket, Message>,
    input: bool,
    /// Whether the end of standard input is one that is passed on.
    has_end: bool,
    sizes: Option<Signal>,
    detach: Option<Detach>,
}

impl Feed {
    /// Passes standard input and the terminal's size on; ends at the keys that leave. What can no longer be passed on is
    /// not waited for: how the command ended tells why.
    async fn run(mut self, resize_first: bool) {
        let mut input = stdin();
        let mut buffer = vec![0; INPUT_BYTES];
        if resize_first && let Some(size) = terminal::size() {
            self.send(resize(size)).await;
        }
        loop {
            let next = tokio::select! {
                got = input.read(&mut buffer), if self.input => match got {
                    Ok(got @ 1..) => {
                        self.has_end = true;
                        let (keys, leaves) = match &mut self.detach {
                            Some(detach) => detach.filter(&buffer[..got]),
                            None => (buffer[..got].to_vec(), false),
                        };
                        if !keys.is_empty() {
                            self.send(message(STDIN, &keys)).await;
                        }
                        if leaves {
                            return;
                        }
                        continue;
                    }
                    // A terminal that is gone has no more to say, either.
                    Ok(0) | Err(_) => {
                        self.input = false;
                        if !self.has_end {
                            continue;
                        }
                        stdin_end()
                    }
                },
                Some(()) = changed(&mut self.sizes) => match terminal::size() {
                    Some(size) => resize(size),
                    None => continue,
                },
            };
            self.send(next).await;
        }
    }

    async fn send(&mut self, message: Bytes) {
        if self.sink.send(Message::Binary(message)).await.is_err() {
            std::future::pending().await
        }
    }
}

async fn changed(sizes: &mut Option<Signal>) -> Option<()> {
    match sizes {
        Some(sizes) => sizes.recv().await,
        None => std::future::pending().await,
    }
}
