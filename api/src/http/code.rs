//! The stable codes of errors. A code has one status and one title; the detail is the error's own.

use http::StatusCode;

/// What kind of error it is, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is malformed.
    InvalidRequest,
    /// Not for this user.
    Forbidden,
    /// No such template.
    UnknownTemplate,
    /// No such sandbox, or no longer.
    UnknownSandbox,
    /// No such build.
    UnknownBuild,
    /// No such path.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// It contradicts what is.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body is no JSON by its own account.
    UnsupportedMediaType,
    /// It is understood, and cannot be done.
    NotPossible,
    /// The program cannot be run in the guest.
    ExecFailed,
    /// Too many checkouts wait.
    QueueFull,
    /// Too many follow this console.
    TooManyFollowers,
    /// Too many processes run in this sandbox.
    TooManyProcesses,
    /// The guest did not do its part.
    GuestError,
    /// No clone in time.
    PoolEmpty,
    /// The pool or the service drains.
    Draining,
    /// The service stops.
    ShuttingDown,
    /// The bodies of other requests have all the memory that bodies may have.
    Overloaded,
    /// The template has nothing to clone.
    TemplateUnavailable,
    /// The command's time was over.
    Timeout,
    /// A mistake in the service.
    Internal,
}

impl Code {
    /// The code as clients compare it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Forbidden => "forbidden",
            Self::UnknownTemplate => "unknown_template",
            Self::UnknownSandbox => "unknown_sandbox",
            Self::UnknownBuild => "unknown_build",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::NotPossible => "not_possible",
            Self::ExecFailed => "exec_failed",
            Self::QueueFull => "queue_full",
            Self::TooManyFollowers => "too_many_followers",
            Self::TooManyProcesses => "too_many_processes",
            Self::GuestError => "guest_error",
            Self::PoolEmpty => "pool_empty",
            Self::Draining => "draining",
            Self::ShuttingDown => "shutting_down",
            Self::Overloaded => "overloaded",
            Self::TemplateUnavailable => "template_unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }

    /// The status that goes with it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::UnknownTemplate | Self::UnknownSandbox | Self::UnknownBuild | Self::NotFound => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotPossible | Self::ExecFailed => StatusCode::UNPROCESSABLE_ENTITY,
            Self::QueueFull | Self::TooManyFollowers | Self::TooManyProcesses => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::GuestError => StatusCode::BAD_GATEWAY,
            Self::PoolEmpty
            | Self::Draining
            | Self::ShuttingDown
            | Self::Overloaded
            | Self::TemplateUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The title: the same words for every error of this code.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "the request is not valid",
            Self::Forbidden => "this user may not do this",
            Self::UnknownTemplate => "there is no such template",
            Self::UnknownSandbox => "there is no such sandbox",
            Self::UnknownBuild => "there is no such build",
            Self::NotFound => "there is nothing here",
            Self::MethodNotAllowed => "the method is not allowed here",
            Self::Conflict => "the request contradicts the present state",
            Self::TooLarge => "the body is too large",
            Self::UnsupportedMediaType => "the body is not JSON",
            Self::NotPossible => "this is not possible",
            Self::ExecFailed => "the program cannot be run",
            Self::QueueFull => "too many checkouts wait",
            Self::TooManyFollowers => "too many clients follow this console",
            Self::TooManyProcesses => "too many processes run in this sandbox",
            Self::GuestError => "the guest failed",
            Self::PoolEmpty => "no sandbox is ready",
            Self::Draining => "no new sandboxes are given out",
            Self::ShuttingDown => "the service is stopping",
            Self::Overloaded => "the service has too much to read",
            Self::TemplateUnavailable => "the template is not available",
            Self::Timeout => "the time is over",
            Self::Internal => "the service failed",
        }
    }
}
