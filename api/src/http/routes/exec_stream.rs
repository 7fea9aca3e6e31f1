//! Commands with open streams, over a WebSocket.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use vmint_cache::{CommandStream, StreamRequest};

use super::checkout::null_is_absent;
use super::command::{Argv, RawCommand, window};
use super::variables::ExecEnv;
use super::websocket::checked;
use crate::http::budget::BodyShare;
use crate::http::limits::{EXEC_MESSAGE_MAX_BYTES, EXEC_TIMEOUT_MAX};
use crate::http::openapi;
use crate::http::params::{Name, Params};
use crate::http::problem::Problem;
use crate::http::seat::Seat;
use crate::http::service::Service;
use crate::http::session::{Session, Wants, first_message, refuse};
use crate::http::users::User;

/// Runs a command with its streams open: a WebSocket with Kubernetes' subprotocol `v5.channel.k8s.io`.
///
/// Binary or text messages, which mean the same bytes; the first byte of each is the channel: 0 standard input, 1 standard output, 2 standard error, 3 a
/// `metav1.Status` in JSON at the end, 4 the size of the terminal (`{"Width": 80, "Height": 24}`); 255 followed by 0
/// closes standard input. A client that goes kills the command.
///
/// With `request=message`, and no other parameter, the first message of the client says what to run: a JSON object
/// with `argv, env, cwd, user, stdin, stdout, stderr, tty, rows, columns, timeout_ms`. So nothing secret is in the URL.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/exec", operation_id = "stream_exec", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("request" = Option<String>, Query, description = "`message`: the first message says what to run"),
        ("command" = Option<Vec<String>>, Query, description = "The program, then each of its arguments: the parameter is repeated. Needed without `request`"),
        ("stdin" = Option<bool>, Query, description = "Standard input is open; false when absent"),
        ("stdout" = Option<bool>, Query, description = "Standard output is sent; true when absent"),
        ("stderr" = Option<bool>, Query, description = "Standard error is sent; true when absent"),
        ("tty" = Option<bool>, Query, description = "A terminal in place of pipes; false when absent"),
        ("rows" = Option<u16>, Query, description = "The terminal's lines at the start; 24 when absent"),
        ("columns" = Option<u16>, Query, description = "The terminal's columns at the start; 80 when absent"),
        ("env" = Option<Vec<String>>, Query, description = "NAME=VALUE, added to the guest's own environment; may be repeated"),
        ("cwd" = Option<String>, Query, description = "The working directory"),
        ("user" = Option<String>, Query, description = "The guest's user: a name or a number"),
        ("timeout_ms" = Option<f64>, Query, description = "When the command is killed, milliseconds; 24 hours when absent")
    ),
    responses(
        (status = 101, description = "The connection is a WebSocket from here on"),
        openapi::Invalid, openapi::UnknownSandbox, openapi::ExecFailed, openapi::TooManyProcesses, openapi::GuestFailed
    )
)]
pub(in crate::http) async fn exec_stream(
    State(service): State<Service>,
    Name(id): Name,
    params: Params,
    user: User,
    seat: Option<Extension<Seat>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    service.cache().sandbox(&id)?;
    let seat = seat.map(|Extension(seat)| seat);
    if is_in_message(&params)? {
        let upgrade = checked(upgrade)?;
        // The message is not there yet: as much as it may be is taken for it.
        let mut share = service.bodies().share(user);
        share.grow(EXEC_MESSAGE_MAX_BYTES)?;
        return Ok(upgrade.on_upgrade(|socket| run_first_message(service, id, seat, share, socket)));
    }
    let (request, wants) = read(&params)?.into_request()?;
    let upgrade = checked(upgrade)?;
    let command = service.cache().exec_stream(&id, request).await?;
    let session = Session::new(&service, command, wants, seat);
    Ok(upgrade.on_upgrade(|socket| session.run(socket)))
}

/// Whether the request comes as the first message.
fn is_in_message(params: &Params) -> Result<bool, Problem> {
    match params.get("request") {
        None => Ok(false),
        Some("message") => params.only(&["request"]).map(|()| true),
        Some(other) => Err(Problem::invalid(format!(
            "the parameter request must be message, not {other:?}"
        ))),
    }
}

/// Runs what the first message asks for.
async fn run_first_message(
    service: Service,
    id: String,
    seat: Option<Seat>,
    share: BodyShare,
    mut socket: WebSocket,
) {
    let _running = service.stopping().enter();
    let begun = tokio::select! {
        first = first_message(&mut socket) => match first {
            Some(first) => begin(&service, &id, first).await,
            None => return,
        },
        () = service.stopping().begun() => Err(Problem::shutting_down()),
    };
    drop(share);
    match begun {
        Ok((command, wants)) => {
            let session = Session::new(&service, command, wants, seat);
            session.run(socket).await;
        }
        Err(problem) => refuse(socket, &problem).await,
    }
}

async fn begin(
    service: &Service,
    id: &str,
    first: Result<Bytes, Problem>,
) -> Result<(CommandStream, Wants), Problem> {
    let message: ExecMessage = serde_json::from_slice(&first?)
        .map_err(|error| Problem::invalid(format!("the first message is not valid: {error}")))?;
    let (request, wants) = message.into_request()?;
    let command = service.cache().exec_stream(id, request).await?;
    Ok((command, wants))
}

/// What to run, as the first message or the parameters have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecMessage {
    argv: Argv,
    #[serde(default)]
    env: ExecEnv,
    #[serde(default, deserialize_with = "null_is_absent")]
    cwd: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    user: String,
    stdin: Option<bool>,
    stdout: Option<bool>,
    stderr: Option<bool>,
    tty: Option<bool>,
    rows: Option<NonZeroU16>,
    columns: Option<NonZeroU16>,
    timeout_ms: Option<f64>,
}

impl ExecMessage {
    fn into_request(self) -> Result<(StreamRequest, Wants), Problem> {
        let wants = Wants {
            stdin: self.stdin.unwrap_or(false),
            stdout: self.stdout.unwrap_or(true),
            stderr: self.stderr.unwrap_or(true),
            tty: self.tty.unwrap_or(false),
        };
        let command = RawCommand {
            argv: self.argv,
            env: self.env,
            cwd: self.cwd,
            user: self.user,
            timeout_ms: self.timeout_ms,
        };
        let window = window(wants.tty, self.rows, self.columns);
        let command = command.checked(EXEC_TIMEOUT_MAX)?;
        Ok((command.streamed(wants.stdin, window), wants))
    }
}

const ONCE: [&str; 9] = [
    "stdin",
    "stdout",
    "stderr",
    "tty",
    "rows",
    "columns",
    "cwd",
    "user",
    "timeout_ms",
];
const LISTS: [&str; 2] = ["command", "env"];

/// What the parameters ask for: the same as a first message.
fn read(params: &Params) -> Result<ExecMessage, Problem> {
    params.only_with_lists(&ONCE, &LISTS)?;
    let flag = |name| parse_flag(params, name);
    let text = |name| params.get(name).unwrap_or_default().to_owned();
    let argv: Vec<String> = params.all("command").map(str::to_owned).collect();
    if argv.first().is_none_or(String::is_empty) {
        return Err(Problem::invalid(
            "the parameter command must begin with a program",
        ));
    }
    let timeout_ms = params.get("timeout_ms").map(|text| {
        let number = text.parse::<f64>();
        number.map_err(|_| Problem::invalid("timeout_ms must be a number"))
    });
    Ok(ExecMessage {
        argv: argv.into(),
        env: parse_env(params)?,
        cwd: text("cwd"),
        user: text("user"),
        stdin: flag("stdin")?,
        stdout: flag("stdout")?,
        stderr: flag("stderr")?,
        tty: flag("tty")?,
        rows: parse_cells(params, "rows")?,
        columns: parse_cells(params, "columns")?,
        timeout_ms: timeout_ms.transpose()?,
    })
}

/// Kubernetes takes truth in the spellings of Go's `strconv.ParseBool`, and its clients use them.
fn parse_flag(params: &Params, name: &str) -> Result<Option<bool>, Problem> {
    match params.get(name) {
        None => Ok(None),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(Some(false)),
        Some(value) => Err(Problem::invalid(format!(
            "the parameter {name} must be true or false, not {value:?}"
        ))),
    }
}

fn parse_env(params: &Params) -> Result<ExecEnv, Problem> {
    let pair = |text: &str| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        // The text may be a secret that lost its name.
        None => Err(Problem::invalid("the parameter env must be NAME=VALUE")),
    };
    let env: Result<BTreeMap<_, _>, _> = params.all("env").map(pair).collect();
    env.map(ExecEnv::from)
}

fn parse_cells(params: &Params, name: &str) -> Result<Option<NonZeroU16>, Problem> {
    let cells = params.get(name).map(|text| {
        text.parse::<NonZeroU16>().map_err(|_| {
            Problem::invalid(format!(
                "the parameter {name} must be a number from 1 to 65535, not {text:?}"
            ))
        })
    });
    cells.transpose()
}
