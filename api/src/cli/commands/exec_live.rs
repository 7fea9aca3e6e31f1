//! `vmint exec` over a WebSocket: output appears as it is made.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, stderr, stdin, stdout};
use tokio::signal::unix::Signal;
use tokio_tungstenite::tungstenite::Message;

use super::exec::{REFUSED, SIGNALLED, failure_code};
use super::path_with;
use crate::cli::args::ExecArgs;
use crate::cli::client::{Client, ClientError};
use crate::cli::error::CliError;
use crate::cli::open::Socket;
use crate::cli::terminal::{self, Raw};
use crate::plain::plain;
use crate::remote::channel::{STDIN, from_command, message, resize, stdin_end};
use crate::remote::status::Said;
use crate::remote::{FromCommand, Status};

/// What is read of standard input at once.
const INPUT_BYTES: usize = 32 << 10;

/// The first message, which says what to run: in a URL, variables would be in the logs of whatever stands between.
pub(super) fn request(args: &ExecArgs) -> String {
    let size = args.tty.then(terminal::size).flatten();
    let request = json!({
        "argv": args.argv,
        "env": args.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        "cwd": args.cwd,
        "user": args.user,
        "stdin": args.interactive,
        "tty": args.tty,
        "rows": size.map(|size| size.rows).filter(|rows| *rows > 0),
        "columns": size.map(|size| size.columns).filter(|columns| *columns > 0),
        "timeout_ms": args.timeout.as_secs_f64() * 1e3,
    });
    request.to_string()
}

pub(super) async fn run(client: &Client, args: &ExecArgs, request: String) -> Result<u8, CliError> {
    if args.tty && args.interactive && !terminal::is_input() {
        return Err(CliError::Usage(
            "-i and -t together need a terminal as standard input; leave -t out to pass a file or a pipe"
                .to_owned(),
        ));
    }
    let sizes = args.tty.then(terminal::size_changes).transpose()?;
    let path = path_with("/v1/sandboxes/", &args.id, "/exec?request=message");
    let mut socket = client.websocket(&path).await?;
    let sent = socket.send(Message::Text(request.into())).await;
    sent.map_err(|error| ClientError::Lost {
        reason: format!("before the command began: {error}"),
    })?;
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
