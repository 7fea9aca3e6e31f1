//! How talking to a guest fails.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use vmint_guest_protocol::names::codes;

use super::{BindError, ExecError, FileError};
use crate::wire::{LinkError, Reply};

/// The guest, or the way to it, failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GuestError {
    /// The agent did not answer in time.
    #[error("the guest agent did not answer {command} within {}", crate::text::duration(*.after))]
    Silent {
        /// The command that was sent.
        command: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The channel to the agent is closed.
    #[error("the channel to the guest agent is closed")]
    Closed,
    /// The agent ended; another one may be started in the guest.
    #[error("the guest's agent ended")]
    AgentEnded,
    /// The channel to the agent failed.
    #[error("the channel to the guest agent failed during {command}")]
    Channel {
        /// The command that was sent.
        command: &'static str,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// The agent answered with an error.
    #[error("the guest agent refused {command}: {reason}")]
    Refused {
        /// The command that was sent.
        command: &'static str,
        /// The agent's own words.
        reason: String,
    },
    /// As many streams are open as may be.
    #[error(
        "{limit} commands, attached clients and files are open in the sandbox already, which is the limit; hint: close one"
    )]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// The guest's answer is not what it must be.
    #[error("the guest's answer to {step} is wrong: {reason}")]
    Proof {
        /// What was asked.
        step: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The guest's agent is of a version that cannot be talked to.
    #[error("{what} is not possible: {OUTDATED}")]
    Outdated {
        /// What was asked for.
        what: &'static str,
    },
    /// The virtual machine ended meanwhile.
    #[error("the virtual machine ended: {reason}")]
    Ended {
        /// How.
        reason: String,
    },
    /// The monitor refused.
    #[error("the hypervisor could not {action}: {reason}")]
    Monitor {
        /// What was wanted.
        action: &'static str,
        /// Why not.
        reason: String,
    },
}

/// Errors that may be the guest's.
pub trait OfGuest {
    /// The guest's error, where it is that. What cannot be asked of an outdated guest is no failure of it.
    fn of_guest(&self) -> Option<&GuestError>;
}

macro_rules! of_guest {
    ($($error:ty),*) => {
        $(
            impl OfGuest for $error {
                fn of_guest(&self) -> Option<&GuestError> {
                    match self {
                        Self::Guest(GuestError::Outdated { .. }) => None,
                        Self::Guest(error) => Some(error),
                        _ => None,
                    }
                }
            }
        )*
    };
}
of_guest!(ExecError, FileError, BindError);

/// Why nothing can be asked of a guest that another version has made.
const OUTDATED: &str = "the sandbox was made by another version of vmint, whose guest agent speaks another \
                                   protocol; hint: release it";

/// Why the agent did not do something, in its own words.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Refusal {
    /// One of [`codes`].
    pub(super) code: String,
    /// The guest kernel's error number, or 0.
    #[serde(default)]
    pub(super) errno: i32,
    #[serde(default)]
    pub(super) message: String,
}

impl Refusal {
    /// One that the guest was not asked for: it would say the same.
    pub(super) fn of_argument(message: String) -> Self {
        Self {
            code: codes::ARGUMENT.to_owned(),
            errno: 0,
            message,
        }
    }

    /// Reads a reply: an answer, or a refusal.
    pub(super) fn or_answer<T: DeserializeOwned>(
        command: &'static str,
        reply: &[u8],
    ) -> Result<Result<T, Self>, GuestError> {
        let reply: Reply<T, Self> =
            serde_json::from_slice(reply).map_err(|error| malformed(command, &error))?;
        reply.outcome().ok_or_else(|| GuestError::Proof {
            step: command,
            reason: "neither an answer nor an error".to_owned(),
        })
    }

    /// Reads the `RESULT` of a stream: what it was to bring, or a refusal.
    pub(super) fn or_result<T: DeserializeOwned>(
        step: &'static str,
        result: &[u8],
    ) -> Result<Result<T, Self>, GuestError> {
        #[derive(Deserialize)]
        struct Refused {
            error: Option<Refusal>,
        }
        let malformed = |error| malformed(step, &error);
        let Refused { error } = serde_json::from_slice(result).map_err(malformed)?;
        match error {
            Some(refusal) => Ok(Err(refusal)),
            None => serde_json::from_slice(result).map(Ok).map_err(malformed),
        }
    }

    pub(super) fn of(self, command: &'static str) -> GuestError {
        let reason = self.message;
        GuestError::Refused { command, reason }
    }
}

/// What came of the guest is not what was asked for.
pub(super) fn malformed(step: &'static str, error: &serde_json::Error) -> GuestError {
    let reason = error.to_string();
    GuestError::Proof { step, reason }
}

pub(super) fn failed(command: &'static str, error: LinkError) -> GuestError {
    match error {
        LinkError::Deadline { after } => GuestError::Silent { command, after },
        LinkError::Closed => GuestError::Closed,
        LinkError::Ended => GuestError::AgentEnded,
        LinkError::Refused(reason) => GuestError::Refused { command, reason },
        source @ (LinkError::Io(_) | LinkError::TooLong { .. } | LinkError::Malformed { .. }) => {
            GuestError::Channel { command, source }
        }
    }
}
