//! Commands in a sandbox.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use utoipa::ToSchema;
use vmint_cache::ExecRequest;

use super::checkout::{null_is_absent, parse_seconds};
use crate::http::body::{Json, Payload};
use crate::http::failure::Failure;
use crate::http::limits::{
    EXEC_BODY_MAX_BYTES, EXEC_OUTPUT_MAX_BYTES, EXEC_TIMEOUT_DEFAULT, EXEC_TIMEOUT_MAX,
};
use crate::http::openapi;
use crate::http::params::{Name, NoParams};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::view::ExecResult;

/// A command.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Exec)]
pub(in crate::http) struct ExecBody {
    /// The program and its arguments; a program without a slash is looked up in the guest's `PATH`.
    #[schema(example = json!(["echo", "hello"]))]
    argv: Vec<String>,
    /// Added to the guest's own environment.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable, example = json!({"K": "v"}))]
    env: BTreeMap<String, String>,
    /// The working directory; the guest's own when empty.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable, example = "/tmp")]
    cwd: String,
    /// The guest's user it runs as, a name or a number; the agent's own, root, when empty.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable, example = "")]
    user: String,
    /// What the command reads, base64.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schema(nullable, example = "aGVsbG8=")]
    stdin_b64: String,
    /// When the command is killed, milliseconds; 60000 when absent.
    #[schema(example = 10_000, minimum = 1)]
    timeout_ms: Option<f64>,
}

impl Payload for ExecBody {
    const MAX_BYTES: usize = EXEC_BODY_MAX_BYTES;
}

/// Runs a command and waits for its end.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/exec", operation_id = "exec_in_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ExecBody,
    responses(
        (status = 200, body = ExecResult),
        openapi::Invalid, openapi::UnknownSandbox, openapi::TooLarge, openapi::NotJson, openapi::ExecFailed,
        openapi::GuestFailed, openapi::Timeout
    )
)]
pub(in crate::http) async fn exec(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
    Json(body): Json<ExecBody>,
) -> Result<axum::Json<ExecResult>, Problem> {
    let request = body.into_request()?;
    let outcome = service
        .cache()
        .exec(&id, request)
        .await
        .map_err(Failure::from)?;
    Ok(axum::Json(ExecResult::from(outcome)))
}

impl ExecBody {
    fn into_request(self) -> Result<ExecRequest, Problem> {
        check_argv(&self.argv)?;
        check_env(&self.env)?;
        check_text("cwd", &self.cwd)?;
        check_text("user", &self.user)?;
        let stdin = BASE64_STANDARD
            .decode(&self.stdin_b64)
            .map_err(|error| Problem::invalid(format!("stdin_b64 is not base64: {error}")))?;
        Ok(ExecRequest {
            argv: self.argv,
            env: self.env,
            cwd: (!self.cwd.is_empty()).then_some(self.cwd),
            user: (!self.user.is_empty()).then_some(self.user),
            stdin,
            timeout: Some(
                self.timeout_ms
                    .map_or(Ok(EXEC_TIMEOUT_DEFAULT), parse_timeout)?,
            ),
            max_output_bytes: EXEC_OUTPUT_MAX_BYTES,
        })
    }
}

pub(super) fn parse_timeout(timeout_ms: f64) -> Result<Duration, Problem> {
    let timeout = parse_seconds("timeout_ms", timeout_ms / 1e3)?;
    if timeout < Duration::from_millis(1) {
        return Err(Problem::invalid("timeout_ms must be at least 1"));
    }
    if timeout > EXEC_TIMEOUT_MAX {
        let limit = EXEC_TIMEOUT_MAX.as_millis();
        return Err(Problem::not_possible(format!(
            "timeout_ms is above the limit of {limit}"
        )));
    }
    Ok(timeout)
}

pub(super) fn check_argv(argv: &[String]) -> Result<(), Problem> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Problem::invalid("argv must begin with a program"));
    }
    argv.iter().try_for_each(|word| check_text("argv", word))
}

pub(super) fn check_env(env: &BTreeMap<String, String>) -> Result<(), Problem> {
    for (name, value) in env {
        if name.is_empty() || name.contains('=') {
            return Err(Problem::invalid(format!(
                "env has a name that is none: {name:?}"
            )));
        }
        check_text("env", name)?;
        check_text("env", value)?;
    }
    Ok(())
}

/// The guest's kernel ends its strings with a zero byte.
pub(super) fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    if text.contains('\0') {
        return Err(Problem::invalid(format!(
            "{field} must not contain a zero byte"
        )));
    }
    Ok(())
}
