//! Errors as RFC 9457 tells them.
//!
//! A handler answers with a [`Problem`]; the body is written by [`finish`], which alone knows the request's id. What
//! other layers answered with an error status, without a problem, becomes one there too.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::code::Code;
use super::limits::DETAIL_MAX_BYTES;
use super::view::OutputSoFar;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    retry_after: Option<Duration>,
    errno: Option<i32>,
    output: Option<Box<OutputSoFar>>,
}

/// The body of every error.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// A name for the kind of error: `urn:vmint:problem:<code>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:vmint:problem:pool_empty")]
    pub(crate) kind: String,
    /// The same words for every error of this code.
    #[schema(example = "no sandbox is ready")]
    pub(crate) title: String,
    /// The status of the answer.
    #[schema(example = 503)]
    pub(crate) status: u16,
    /// What happened this time.
    #[schema(example = "no clone was ready within 5000 ms: 2 are being made")]
    pub(crate) detail: String,
    /// The stable code.
    #[schema(example = "pool_empty")]
    pub(crate) code: String,
    /// The request's id, as in `x-request-id` and in the logs.
    #[schema(example = "0f8fad5b-d9cb-469f-a165-70867728950e")]
    pub(crate) request_id: String,
    /// With `exec_failed`, and where the guest's kernel refuses a file: its error number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 2)]
    pub(crate) errno: Option<i32>,
    /// With `timeout` of an exec: the newest 1 MiB of what is kept of what the command wrote, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) stdout: Option<String>,
    /// The same, where that is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) stdout_b64: Option<String>,
    /// The same of its error stream, where that is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) stderr: Option<String>,
    /// The same, where that is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) stderr_b64: Option<String>,
    /// With those: whether it wrote more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) truncated: Option<bool>,
}

impl Problem {
    /// A problem with its own words.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: shortened(detail.into()),
            retry_after: None,
            errno: None,
            output: None,
        }
    }

    /// A request that is malformed.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// A request that is understood and cannot be done.
    pub(crate) fn not_possible(detail: impl Into<String>) -> Self {
        Self::new(Code::NotPossible, detail)
    }

    /// Says when another try makes sense.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds the guest kernel's error number.
    pub(crate) fn errno(mut self, errno: i32) -> Self {
        self.errno = Some(errno);
        self
    }

    /// Adds what a command had written.
    pub(crate) fn output(mut self, output: OutputSoFar) -> Self {
        self.output = Some(Box::new(output));
        self
    }

    /// The guest kernel's error number.
    pub(crate) fn errno_of_guest(&self) -> Option<i32> {
        self.errno
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its own words.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// A detail within [`DETAIL_MAX_BYTES`].
fn shortened(detail: String) -> String {
    if detail.len() <= DETAIL_MAX_BYTES {
        return detail;
    }
    let mut end = DETAIL_MAX_BYTES;
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &detail[..end])
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of an error; any other answer passes.
pub(super) fn finish(response: Response, request_id: &str) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_readiness(&response) {
        return response;
    }
    let (mut head, _) = response.into_parts();
    let problem = head
        .extensions
        .remove::<Problem>()
        .unwrap_or_else(|| foreign(status));
    let output = problem.output.map(|output| *output);
    let output = output.unwrap_or_default();
    let body = ProblemBody {
        kind: format!("urn:vmint:problem:{}", problem.code.as_str()),
        title: problem.code.title().to_owned(),
        status: status.as_u16(),
        detail: problem.detail,
        code: problem.code.as_str().to_owned(),
        request_id: request_id.to_owned(),
        errno: problem.errno,
        stdout: output.stdout,
        stdout_b64: output.stdout_b64,
        stderr: output.stderr,
        stderr_b64: output.stderr_b64,
        truncated: output.truncated,
    };
    let json = serde_json::to_vec(&body).expect("strings and numbers are JSON");
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    if let Some(wait) = problem.retry_after {
        head.headers
            .insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    Response::from_parts(head, json.into())
}

/// `/readyz` says no with a body of its own.
#[derive(Clone, Copy)]
pub(super) struct KeepBody;

fn is_readiness(response: &Response) -> bool {
    response.extensions().get::<KeepBody>().is_some()
}

/// An error of a layer that knows nothing of problems.
fn foreign(status: StatusCode) -> Problem {
    let code = match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        status if status.is_client_error() => Code::InvalidRequest,
        _ => Code::Internal,
    };
    Problem::new(
        code,
        status.canonical_reason().unwrap_or("no reason was given"),
    )
}

/// `Retry-After` has no fractions; 0 would mean at once.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0).max(u64::from(wait.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_no_longer_than_it_may_be() {
        let long = "ä".repeat(DETAIL_MAX_BYTES);
        let problem = Problem::invalid(format!("x{long}"));
        assert!(problem.detail().len() < DETAIL_MAX_BYTES + 4);
        assert!(problem.detail().starts_with("xää") && problem.detail().ends_with("ä…"));
        assert_eq!(Problem::invalid("short").detail(), "short");
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::from_millis(2001)), 3);
    }
}
