//! Why a request was refused or a stream has failed, as the host reads it.

use std::io;

use serde::{Serialize, Serializer};
use vmint_guest_protocol::names::codes;

use crate::command::SpawnError;
use crate::failure::Failure;
use crate::{json, sys};

const MESSAGE_MAX_CHARS: usize = 1024;

#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    code: &'static str,
    errno: i32,
    #[serde(serialize_with = "cut")]
    message: String,
}

impl Refusal {
    /// By no word of the kernel.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            errno: 0,
            message: message.into(),
        }
    }

    pub(super) fn argument(name: &str, needs: &str) -> Self {
        Self::new(codes::ARGUMENT, format!("argument {name} needs {needs}"))
    }

    pub(super) fn too_many(limit: usize, what: &str) -> Self {
        Self::new(codes::TOO_MANY, format!("{limit} {what} already"))
    }

    pub(super) fn cancelled() -> Self {
        Self {
            errno: libc::ECANCELED,
            ..Self::new(codes::CANCELLED, "cancelled by the host")
        }
    }

    pub(super) fn over_credit() -> Self {
        Self::new(codes::ARGUMENT, "more was sent than there was credit for")
    }

    pub(super) fn of_file(path: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let reason = match errno {
            0 => error.to_string(),
            errno => sys::error_text(errno),
        };
        Self {
            errno,
            ..Self::new(codes::FAILED, format!("{path}: {reason}"))
        }
    }

    /// How a stream ends that has failed.
    pub(super) fn result(&self) -> String {
        #[derive(Serialize)]
        struct Failed<'a> {
            error: &'a Refusal,
        }
        json::text(&Failed { error: self })
    }
}

/// No reason needs more.
fn cut<S: Serializer>(message: &str, to: S) -> Result<S::Ok, S::Error> {
    let end = message.char_indices().nth(MESSAGE_MAX_CHARS);
    to.serialize_str(&message[..end.map_or(message.len(), |(end, _)| end)])
}

impl From<json::Wrong> for Refusal {
    fn from(wrong: json::Wrong) -> Self {
        Self::new(codes::ARGUMENT, format!("arguments: {wrong}"))
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            errno: failure.errno(),
            ..Self::new(codes::FAILED, failure.to_string())
        }
    }
}

impl From<SpawnError> for Refusal {
    fn from(error: SpawnError) -> Self {
        Self {
            errno: error.errno,
            ..Self::new(codes::NOT_STARTED, error.message)
        }
    }
}
