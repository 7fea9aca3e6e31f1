//! `vmint exec` over a WebSocket: output appears as it is made.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::live::Live;
use super::path_with;
use crate::cli::args::ExecArgs;
use crate::cli::client::{Client, ClientError};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::terminal::{self, Raw};

/// What to run, as the service takes it in a first message or a body: in a URL, variables would be in the logs of whatever
/// stands between.
pub(super) fn request(args: &ExecArgs, timeout: Option<Duration>) -> Value {
    let size = args.tty.then(terminal::size).flatten();
    json!({
        "argv": args.argv,
        "env": args.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        "cwd": args.cwd,
        "user": args.user,
        "stdin": args.interactive,
        "tty": args.tty,
        "rows": size.map(|size| size.rows).filter(|rows| *rows > 0),
        "columns": size.map(|size| size.columns).filter(|columns| *columns > 0),
        "timeout_ms": timeout.map(|timeout| timeout.as_secs_f64() * 1e3),
    })
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
    let live = Live {
        output: Output { json: false },
        input: args.interactive,
        empty_is_end: true,
        resize: false,
        sizes,
        raw,
        detach: None,
    };
    live.run(socket).await
}
