//! Processes of a sandbox: they belong to no connection, and run until they end.

use std::num::NonZeroU16;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;
use vmint_cache::ProcessOrder;

use super::checkout::null_is_absent;
use super::command::{Argv, RawCommand, window};
use super::signal::RawSignal;
use super::variables::ExecEnv;
use crate::http::body::{Json, Payload};
use crate::http::idempotency;
use crate::http::limits::{EXEC_BODY_MAX_BYTES, PROCESS_TIMEOUT_MAX};
use crate::http::openapi;
use crate::http::params::{Name, NoParams, Params, ProcessName};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::view::{Process, ProcessList};

/// A process to start.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProcessOrder)]
pub(in crate::http) struct ProcessBody {
    /// The program and its arguments; a program without a slash is looked up in the guest's `PATH`.
    #[schema(value_type = Vec<String>, example = json!(["sleep", "60"]))]
    argv: Argv,
    /// Added to the guest's own environment: at most 4096 variables and 1 MiB.
    #[serde(default)]
    #[schema(nullable, value_type = BTreeMap<String, String>, example = json!({"K": "v"}))]
    env: ExecEnv,
    /// The working directory; the guest's own when empty.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable, example = "/tmp")]
    cwd: String,
    /// The guest's user it runs as, a name or a number; the agent's own, root, when empty.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable, example = "")]
    user: String,
    /// Whether it has a terminal in place of pipes; false when absent.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable)]
    tty: bool,
    /// The terminal's lines at the start; 24 when absent.
    #[schema(value_type = Option<u16>, minimum = 1)]
    rows: Option<NonZeroU16>,
    /// The terminal's columns at the start; 80 when absent.
    #[schema(value_type = Option<u16>, minimum = 1)]
    columns: Option<NonZeroU16>,
    /// Whether its standard input is open, for clients that attach; without, it is empty. False when absent.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable)]
    stdin: bool,
    /// Whether the newest 1 MiB of each of its streams is kept in the guest; true when absent.
    keep_output: Option<bool>,
    /// When it is killed, milliseconds after its start; never when absent.
    #[schema(example = 60_000, minimum = 1)]
    timeout_ms: Option<f64>,
}

impl Payload for ProcessBody {
    const MAX_BYTES: usize = EXEC_BODY_MAX_BYTES;
}

impl ProcessBody {
    fn into_order(self) -> Result<ProcessOrder, Problem> {
        let command = RawCommand {
            argv: self.argv,
            env: self.env,
            cwd: self.cwd,
            user: self.user,
            timeout_ms: self.timeout_ms,
        };
        let window = window(self.tty, self.rows, self.columns);
        let command = command.checked(PROCESS_TIMEOUT_MAX)?;
        Ok(ProcessOrder {
            command: command.streamed(self.stdin, window),
            keep_output: self.keep_output.unwrap_or(true),
        })
    }
}

/// A signal to send.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Signal)]
pub(in crate::http) struct SignalBody {
    /// Its name, with or without `SIG`, or its number.
    #[schema(example = "TERM")]
    signal: RawSignal,
}

impl Payload for SignalBody {}

/// Starts a process that runs until it ends, whatever becomes of its clients and of the service.
///
/// It ends by itself, by a signal, at its `timeout_ms`, by a `DELETE`, or with the sandbox. There is no `Idempotency-Key`
/// here: the list shows whether a request whose answer was lost has started one.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes", operation_id = "start_process", tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ProcessBody,
    responses(
        (status = 201, body = Process, headers(("location" = String, description = "The process"))),
        openapi::Invalid, openapi::UnknownSandbox, openapi::TooLarge, openapi::NotJson, openapi::ExecFailed,
        openapi::TooManyProcesses, openapi::GuestFailed, openapi::Overloaded
    )
)]
pub(in crate::http) async fn start(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
    headers: HeaderMap,
    Json(body, _share): Json<ProcessBody>,
) -> Result<Response, Problem> {
    idempotency::refuse(&headers)?;
    let started = service.cache().start_process(&id, body.into_order()?);
    let process = Process::from(started.await?);
    let location = format!("/v1/sandboxes/{id}/processes/{}", process.id);
    let answer = (
        StatusCode::CREATED,
        [(LOCATION, location)],
        axum::Json(process),
    );
    Ok(answer.into_response())
}

/// The processes of a sandbox, without their output.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/processes", operation_id = "list_processes", tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, body = ProcessList),
        openapi::Invalid, openapi::UnknownSandbox, openapi::NotPossible, openapi::GuestFailed
    )
)]
pub(in crate::http) async fn list(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
) -> Result<axum::Json<ProcessList>, Problem> {
    let listed = service.cache().processes(&id).await?;
    let processes = listed.into_iter().map(Process::from).collect();
    Ok(axum::Json(ProcessList { processes }))
}

/// One process, with what is kept of its output.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/processes/{process}", operation_id = "show_process", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process"),
        ("output" = Option<bool>, Query, description = "Whether its kept output is in the answer; true when absent")
    ),
    responses(
        (status = 200, body = Process),
        openapi::Invalid, openapi::NoSuchProcess, openapi::NotPossible, openapi::GuestFailed
    )
)]
pub(in crate::http) async fn show(
    State(service): State<Service>,
    name: ProcessName,
    params: Params,
) -> Result<axum::Json<Process>, Problem> {
    params.only(&["output"])?;
    let wants_output = params.flag_or("output", true)?;
    let ProcessName { sandbox, process } = &name;
    let found = service.cache().process(sandbox, process).await?;
    let has_output = found.kept_bytes.is_some();
    let shown = Process::from(found);
    if !(wants_output && has_output) {
        return Ok(axum::Json(shown));
    }
    let kept = service.cache().kept_output(sandbox, process).await?;
    Ok(axum::Json(shown.with_output(kept)))
}

/// Sends a signal to a process.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes/{process}/signal", operation_id = "signal_process", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process")
    ),
    request_body = SignalBody,
    responses(
        (status = 204, description = "It was sent"),
        openapi::Invalid, openapi::NoSuchProcess, openapi::ProcessEnded, openapi::TooLarge, openapi::NotJson,
        openapi::NotPossible, openapi::GuestFailed, openapi::Overloaded
    )
)]
pub(in crate::http) async fn signal(
    State(service): State<Service>,
    name: ProcessName,
    _: NoParams,
    Json(body, _share): Json<SignalBody>,
) -> Result<StatusCode, Problem> {
    let number = body.signal.number()?;
    let ProcessName { sandbox, process } = &name;
    let sent = service.cache().signal_process(sandbox, process, number);
    sent.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Kills a process with its descendants; one that has ended is forgotten.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/processes/{process}", operation_id = "end_process", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process")
    ),
    responses(
        (status = 204, description = "It was killed; or it had ended, and is no longer listed"),
        openapi::Invalid, openapi::NoSuchProcess, openapi::NotPossible, openapi::GuestFailed
    )
)]
pub(in crate::http) async fn end(
    State(service): State<Service>,
    name: ProcessName,
    _: NoParams,
) -> Result<StatusCode, Problem> {
    let ProcessName { sandbox, process } = &name;
    service.cache().end_process(sandbox, process).await?;
    Ok(StatusCode::NO_CONTENT)
}
