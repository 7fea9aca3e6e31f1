//! `vmint exec` over a WebSocket: output appears as it is made.

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, stderr, stdin, stdout};
use tokio::signal::unix::Signal;
use tokio_tungstenite::tungstenite::Message;

use super::exec::{REFUSED, SIGNALLED, failure_code};
use super::query::Query;
use crate::cli::args::ExecArgs;
use crate::cli::client::{Client, ClientError};
use crate::cli::error::CliError;
use crate::cli::open::Socket;
use crate::cli::plain;
use crate::cli::terminal::{self, Raw};
use crate::remote::channel::{STDIN, from_command, message, resize, stdin_end};
use crate::remote::status::Said;
use crate::remote::{FromCommand, Status};

/// What is read of standard input at once.
const INPUT_BYTES: usize = 32 << 10;

/// Where the command is found, with all that it is.
pub(super) fn path(args: &ExecArgs) -> String {
    let timeout_ms = args.timeout.as_secs_f64() * 1e3;
    let mut query = Query::of_sandbox(&args.id, "/exec");
    for word in &args.argv {
        query.add("command", word);
    }
    for (name, value) in &args.env {
        query.add("env", &format!("{name}={value}"));
    }
    query.add("stdin", &args.interactive.to_string());
    query.add("timeout_ms", &timeout_ms.to_string());
    for (name, value) in [("cwd", &args.cwd), ("user", &args.user)] {
        if let Some(value) = value {
            query.add(name, value);
        }
    }
    if args.tty {
        query.add("tty", "true");
        if let Some(size) = terminal::size() {
            query.add("rows", &size.rows.to_string());
            query.add("columns", &size.columns.to_string());
        }
    }
    query.into_path()
}

pub(super) async fn run(client: &Client, args: &ExecArgs) -> Result<u8, CliError> {
    if args.tty && args.interactive && !terminal::is_input() {
        return Err(CliError::Usage(
            "-i and -t together need a terminal as standard input; leave -t out to pass a file or a pipe"
                .to_owned(),
        ));
    }
    let sizes = args.tty.then(terminal::size_changes).transpose()?;
    let socket = client.websocket(&path(args)).await?;
    let raw = (args.tty && args.interactive)
        .then(Raw::enter)
        .transpose()?;
    let (sink, messages) = socket.split();
    let said = tokio::select! {
        biased;
        signal = signalled(raw) => return Ok(u8::try_from(SIGNALLED + signal).unwrap_or(REFUSED)),
        said = receive(messages) => said?,
        never = feed(sink, args.interactive, sizes) => match never {},
    };
    match said {
        Said::Exited(code) => Ok(u8::try_from(code & 0xff).unwrap_or(REFUSED)),
        Said::Failed {
            code,
            message,
            errno,
        } => {
            eprintln!("vmint: {} ({code})", plain(&message));
            Ok(failure_code(&code, errno))
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
async fn receive(mut messages: SplitStream<Socket>) -> Result<Said, CliError> {
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
            FromCommand::Stdout(bytes) => {
                write(&mut out, &bytes, "cannot write to standard output").await?;
            }
            FromCommand::Stderr(bytes) => {
                write(&mut err, &bytes, "cannot write to standard error").await?;
            }
            FromCommand::Status(json) => {
                let status: Status = serde_json::from_slice(&json)
                    .map_err(|error| lost(format!("its status is broken: {error}")))?;
                return Ok(status.said());
            }
            FromCommand::Nothing => {}
        }
    }
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

/// Passes standard input and the terminal's size on. What cannot be passed on any more, nobody waits for: how the command
/// ended tells why.
async fn feed(
    mut sink: SplitSink<Socket, Message>,
    interactive: bool,
    mut sizes: Option<Signal>,
) -> std::convert::Infallible {
    let mut input = stdin();
    let mut buffer = vec![0; INPUT_BYTES];
    let mut is_open = interactive;
    loop {
        let next = tokio::select! {
            got = input.read(&mut buffer), if is_open => match got {
                Ok(got @ 1..) => message(STDIN, &buffer[..got]),
                // A terminal that is gone has no more to say, either.
                Ok(0) | Err(_) => {
                    is_open = false;
                    stdin_end()
                }
            },
            Some(()) = changed(&mut sizes) => match terminal::size() {
                Some(size) => resize(size),
                None => continue,
            },
        };
        if sink.send(Message::Binary(next)).await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn changed(sizes: &mut Option<Signal>) -> Option<()> {
    match sizes {
        Some(sizes) => sizes.recv().await,
        None => std::future::pending().await,
    }
}
