//! Why a request was refused, as the host reads it.

use std::fmt;

use crate::failure::Failure;
use crate::{identity, json};

#[derive(Debug)]
pub(super) enum CallError {
    /// There is no such command.
    NotFound,
    /// The arguments are not what the command takes.
    Arguments(json::Wrong),
    /// An argument that is needed, or makes no sense.
    Argument {
        name: &'static str,
        needs: &'static str,
    },
    Identity(identity::Wrong),
    TooManyCommands {
        limit: usize,
    },
    TooManyWaiting {
        limit: usize,
    },
    NoSuchCommand {
        pid: i64,
    },
    CannotStart(String),
    Failed(Failure),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => write!(f, "there is no such command"),
            Self::Arguments(wrong) => write!(f, "arguments: {wrong}"),
            Self::Argument { name, needs } => write!(f, "argument {name} needs {needs}"),
            Self::Identity(wrong) => write!(f, "{wrong}"),
            Self::TooManyCommands { limit } => write!(f, "{limit} commands run already"),
            Self::TooManyWaiting { limit } => write!(f, "{limit} requests wait already"),
            Self::NoSuchCommand { pid } => write!(f, "no command has process id {pid}"),
            Self::CannotStart(reason) => write!(f, "{reason}"),
            Self::Failed(failure) => write!(f, "{failure}"),
        }
    }
}

impl From<json::Wrong> for CallError {
    fn from(wrong: json::Wrong) -> Self {
        Self::Arguments(wrong)
    }
}

impl From<identity::Wrong> for CallError {
    fn from(wrong: identity::Wrong) -> Self {
        Self::Identity(wrong)
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
