//! Commands in a sandbox.

use std::time::Duration;

use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use utoipa::ToSchema;
use vmint_cache::ExecRequest;

use super::checkout::{null_is_absent, parse_seconds};
use super::variables::{ExecEnv, check_exec_env};
use crate::http::body::{Json, Payload};
use crate::http::bounded::List;
use crate::http::failure::Failure;
use crate::http::limits::{
    ARGV_MAX_WORDS, EXEC_BODY_MAX_BYTES, EXEC_OUTPUT_MAX_BYTES, EXEC_TIMEOUT_DEFAULT,
    EXEC_TIMEOUT_MAX,
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
    #[schema(value_type = Vec<String>, example = json!(["echo", "hello"]))]
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
        openapi::GuestFailed, openapi::Overloaded, openapi::Timeout
    )
)]
pub(in crate::http) async fn exec(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
    Json(body, _share): Json<ExecBody>,
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
        let argv = check_argv(self.argv)?;
        let env = check_exec_env(self.env)?;
        check_text("cwd", &self.cwd)?;
        check_text("user", &self.user)?;
        let stdin = BASE64_STANDARD
            .decode(&self.stdin_b64)
            .map_err(|error| Problem::invalid(format!("stdin_b64 is not base64: {error}")))?;
        Ok(ExecRequest {
            argv,
            env,
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

/// A program and its arguments, as they came.
pub(super) type Argv = List<String, ARGV_MAX_WORDS>;

/// The program and its arguments, or what is wrong with them.
pub(super) fn check_argv(argv: Argv) -> Result<Vec<String>, Problem> {
    let argv = argv.within().ok_or_else(|| {
        Problem::not_possible(format!("argv is above the limit of {ARGV_MAX_WORDS} words"))
    })?;
    check_words(&argv)?;
    Ok(argv)
}

/// Whether the words are a command.
pub(super) fn check_words(argv: &[String]) -> Result<(), Problem> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Problem::invalid("argv must begin with a program"));
    }
    argv.iter().try_for_each(|word| check_text("argv", word))
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
