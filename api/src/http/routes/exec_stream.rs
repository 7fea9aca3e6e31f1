//! Commands with open streams, over a WebSocket.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde::Deserialize;
use vmint_cache::{CommandStream, StreamRequest, WindowSize};

use super::checkout::null_is_absent;
use super::exec::{Argv, check_argv, check_text, check_words, parse_timeout};
use super::unknown_sandbox;
use super::variables::{ExecEnv, check_exec_env, check_names_and_values};
use crate::http::failure::Failure;
use crate::http::limits::EXEC_MESSAGE_MAX_BYTES;
use crate::http::openapi;
use crate::http::params::{Name, Params};
use crate::http::problem::Problem;
use crate::http::seat::Seat;
use crate::http::service::Service;
use crate::http::session::{Session, Wants, first_message, refuse};
use crate::remote::channel::PROTOCOL;

/// The size of a terminal whose client did not say.
const WINDOW_DEFAULT: WindowSize = WindowSize {
    rows: 24,
    columns: 80,
};
/// What is read from a connection at once.
const READ_BUFFER_BYTES: usize = 32 << 10;

/// Runs a command with its streams open: a WebSocket with Kubernetes' subprotocol `v5.channel.k8s.io`.
///
/// Binary messages, the first byte of each the channel: 0 standard input, 1 standard output, 2 standard error, 3 a
/// `metav1.Status` in JSON at the end, 4 the size of the terminal (`{"Width": 80, "Height": 24}`); 255 followed by 0
/// closes standard input. A client that goes kills the command.
///
/// With `request=message`, and no other parameter, the first message of the client says what to run: a text, a JSON object
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
        openapi::Invalid, openapi::UnknownSandbox, openapi::NotPossible, openapi::GuestFailed
    )
)]
pub(in crate::http) async fn exec_stream(
    State(service): State<Service>,
    Name(id): Name,
    params: Params,
    seat: Option<Extension<Seat>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    if service.cache().sandbox(&id).is_none() {
        return Err(unknown_sandbox(&id));
    }
    let seat = seat.map(|Extension(seat)| seat);
    if is_in_message(&params)? {
        let upgrade = checked(upgrade)?;
        return Ok(upgrade.on_upgrade(|socket| run_first_message(service, id, seat, socket)));
    }
    let (request, wants) = read(&params)?;
    let upgrade = checked(upgrade)?;
    let command = service
        .cache()
        .exec_stream(&id, request)
        .await
        .map_err(Failure::from)?;
    let session = Session {
        command,
        wants,
        stopping: service.stopping().clone(),
        _running: service.stopping().enter(),
        seat,
    };
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
    mut socket: WebSocket,
) {
    let running = service.stopping().enter();
    let begun = tokio::select! {
        first = first_message(&mut socket) => match first {
            Some(first) => begin(&service, &id, first).await,
            None => return,
        },
        () = service.stopping().begun() => Err(Problem::shutting_down()),
    };
    match begun {
        Ok((command, wants)) => {
            let session = Session {
                command,
                wants,
                stopping: service.stopping().clone(),
                _running: running,
                seat,
            };
            session.run(socket).await;
        }
        Err(problem) => refuse(socket, &problem).await,
    }
}

async fn begin(
    service: &Service,
    id: &str,
    first: Result<String, Problem>,
) -> Result<(CommandStream, Wants), Problem> {
    let message: ExecMessage = serde_json::from_str(&first?)
        .map_err(|error| Problem::invalid(format!("the first message is not valid: {error}")))?;
    let (request, wants) = message.into_request()?;
    let command = service.cache().exec_stream(id, request).await;
    Ok((command.map_err(Failure::from)?, wants))
}

/// The first message: what the parameters say otherwise.
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
        check_text("cwd", &self.cwd)?;
        check_text("user", &self.user)?;
        let wants = Wants {
            stdin: self.stdin.unwrap_or(false),
            stdout: self.stdout.unwrap_or(true),
            stderr: self.stderr.unwrap_or(true),
            tty: self.tty.unwrap_or(false),
        };
        let window = WindowSize {
            rows: self.rows.map_or(WINDOW_DEFAULT.rows, NonZeroU16::get),
            columns: self.columns.map_or(WINDOW_DEFAULT.columns, NonZeroU16::get),
        };
        let request = StreamRequest {
            argv: check_argv(self.argv)?,
            env: check_exec_env(self.env)?,
            cwd: (!self.cwd.is_empty()).then_some(self.cwd),
            user: (!self.user.is_empty()).then_some(self.user),
            stdin: wants.stdin,
            tty: wants.tty.then_some(window),
            timeout: self.timeout_ms.map(parse_timeout).transpose()?,
        };
        Ok((request, wants))
    }
}

/// The upgrade, where it is one to what we speak.
fn checked(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<WebSocketUpgrade, Problem> {
    let upgrade = upgrade.map_err(|rejection| {
        let why = rejection.body_text();
        Problem::invalid(format!(
            "this is for WebSockets ({why}); POST runs a command and answers once"
        ))
    })?;
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(EXEC_MESSAGE_MAX_BYTES)
        .max_frame_size(EXEC_MESSAGE_MAX_BYTES);
    if upgrade.selected_protocol().is_none() {
        return Err(Problem::invalid(format!(
            "the header Sec-WebSocket-Protocol must offer {PROTOCOL}"
        )));
    }
    Ok(upgrade)
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

/// What the parameters ask for.
fn read(params: &Params) -> Result<(StreamRequest, Wants), Problem> {
    params.only_with_lists(&ONCE, &LISTS)?;
    let flag = |name, default| parse_flag(params, name, default);
    let wants = Wants {
        stdin: flag("stdin", false)?,
        stdout: flag("stdout", true)?,
        stderr: flag("stderr", true)?,
        tty: flag("tty", false)?,
    };
    let argv: Vec<String> = params.all("command").map(str::to_owned).collect();
    check_words(&argv).map_err(|_| {
        Problem::invalid("the parameter command must begin with a program, and hold no zero byte")
    })?;
    let env = parse_env(params)?;
    let text = |name: &'static str| {
        let value = params.get(name).filter(|value| !value.is_empty());
        value.map_or(Ok(()), |value| check_text(name, value))?;
        Ok::<_, Problem>(value.map(str::to_owned))
    };
    let window = WindowSize {
        rows: parse_cells(params, "rows", WINDOW_DEFAULT.rows)?,
        columns: parse_cells(params, "columns", WINDOW_DEFAULT.columns)?,
    };
    let timeout = params.get("timeout_ms").map(|text| {
        let number = text.parse::<f64>();
        parse_timeout(number.map_err(|_| Problem::invalid("timeout_ms must be a number"))?)
    });
    let request = StreamRequest {
        argv,
        env,
        cwd: text("cwd")?,
        user: text("user")?,
        stdin: wants.stdin,
        tty: wants.tty.then_some(window),
        timeout: timeout.transpose()?,
    };
    Ok((request, wants))
}

/// Kubernetes' clients write truth as `true` or `1`.
fn parse_flag(params: &Params, name: &str, default: bool) -> Result<bool, Problem> {
    match params.get(name) {
        None => Ok(default),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(value) => Err(Problem::invalid(format!(
            "the parameter {name} must be true or false, not {value:?}"
        ))),
    }
}

fn parse_env(params: &Params) -> Result<BTreeMap<String, String>, Problem> {
    let pair = |text: &str| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        // The text may be a secret that lost its name.
        None => Err(Problem::invalid("the parameter env must be NAME=VALUE")),
    };
    let env = params.all("env").map(pair).collect::<Result<_, _>>()?;
    check_names_and_values(&env)?;
    Ok(env)
}

fn parse_cells(params: &Params, name: &str, default: u16) -> Result<u16, Problem> {
    match params.get(name).map(str::parse::<u16>) {
        None => Ok(default),
        Some(Ok(cells)) if cells > 0 => Ok(cells),
        Some(_) => Err(Problem::invalid(format!(
            "the parameter {name} must be a number from 1 to 65535"
        ))),
    }
}
