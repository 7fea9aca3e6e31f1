//! Commands in a sandbox.

use axum::extract::State;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;
use vmint_cache::ExecRequest;

use super::checkout::null_is_absent;
use super::command::{Argv, RawCommand};
use super::variables::ExecEnv;
use crate::http::body::{Json, Payload};
use crate::http::budget::BodyShare;
use crate::http::idempotency;
use crate::http::limits::{EXEC_BODY_MAX_BYTES, EXEC_TIMEOUT_DEFAULT, EXEC_TIMEOUT_MAX};
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
///
/// The command belongs to the request: a client that hangs up kills it, with its descendants. What should outlive the
/// request is a process (`POST /v1/sandboxes/{id}/processes`). There is no `Idempotency-Key` here.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/exec", operation_id = "exec_in_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ExecBody,
    responses(
        (status = 200, body = ExecResult),
        openapi::Invalid, openapi::UnknownSandbox, openapi::TooLarge, openapi::NotJson, openapi::ExecFailed,
        openapi::TooManyProcesses, openapi::GuestFailed, openapi::Overloaded, openapi::Timeout
    )
)]
pub(in crate::http) async fn exec(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
    headers: HeaderMap,
    Json(body, share): Json<ExecBody>,
) -> Result<axum::Json<ExecResult>, Problem> {
    idempotency::refuse(&headers)?;
    let request = body.into_request(share)?;
    let outcome = service.cache().exec(&id, request).await?;
    Ok(axum::Json(ExecResult::from(outcome)))
}

/// What a command reads, with the share of the body that it came in: both are held until the guest has them, and not for
/// as long as the command runs.
struct HeldInput {
    bytes: Vec<u8>,
    _share: BodyShare,
}

impl AsRef<[u8]> for HeldInput {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ExecBody {
    fn into_request(self, share: BodyShare) -> Result<ExecRequest, Problem> {
        let bytes = BASE64_STANDARD
            .decode(&self.stdin_b64)
            .map_err(|error| Problem::invalid(format!("stdin_b64 is not base64: {error}")))?;
        let stdin = Bytes::from_owner(HeldInput {
            bytes,
            _share: share,
        });
        let command = RawCommand {
            argv: self.argv,
            env: self.env,
            cwd: self.cwd,
            user: self.user,
            timeout_ms: self.timeout_ms,
        };
        let command = command.checked(EXEC_TIMEOUT_MAX)?;
        Ok(command.awaited(stdin, EXEC_TIMEOUT_DEFAULT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::budget::BodyBudget;
    use crate::http::users::{Role, User};

    #[test]
    fn the_share_of_a_body_is_held_by_what_the_command_reads() {
        const BODY_BYTES: usize = 1 << 20;
        let user = User {
            uid: 0,
            role: Role::Root,
        };
        let budget = BodyBudget::new(BODY_BYTES);
        let mut share = budget.share(user);
        share.grow(BODY_BYTES).expect("the budget is free");
        let body: ExecBody =
            serde_json::from_value(serde_json::json!({"argv": ["cat"]})).expect("valid");
        let request = body.into_request(share).expect("valid");
        let next = || budget.share(user).grow(BODY_BYTES);
        assert!(next().is_err(), "the request is not written yet");
        drop(request.stdin);
        assert!(next().is_ok());
    }
}
