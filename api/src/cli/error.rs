//! How a command fails, and with which exit code.

use std::io;

use thiserror::Error;

use super::client::ClientError;
use crate::config::LoadError;
use crate::serve::ServeError;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The service, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The service could not start.
    #[error(transparent)]
    Serve(Box<ServeError>),
    /// An error that was told already; only its exit code is left to give.
    #[error(transparent)]
    Told(Box<CliError>),
    /// Something is left after `clean`.
    #[error(transparent)]
    Clean(#[from] vmint_factory::CleanError),
    /// Leases are not guarded.
    #[error(transparent)]
    Guard(#[from] vmint_factory::GuardError),
    /// Standard input or output.
    #[error("{what}: {source}")]
    Stream {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl CliError {
    /// Standard output failed.
    pub(crate) fn output(source: io::Error) -> Self {
        Self::Stream {
            what: "cannot write to standard output",
            source,
        }
    }

    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Told(error) => error.exit_code(),
            Self::Usage(_) => 2,
            Self::Config(_) => 64,
            Self::Client(
                ClientError::Unreachable { .. }
                | ClientError::Silent { .. }
                | ClientError::Broken { .. },
            ) => 69,
            Self::Client(ClientError::Refused(_))
            | Self::Serve(_)
            | Self::Clean(_)
            | Self::Guard(_)
            | Self::Stream { .. } => 1,
        }
    }

    /// Whether there is nothing more to tell: it was told, or whoever reads our output has had enough.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Told(_) => true,
            Self::Stream { source, .. } => source.kind() == io::ErrorKind::BrokenPipe,
            Self::Usage(_)
            | Self::Config(_)
            | Self::Client(_)
            | Self::Serve(_)
            | Self::Clean(_)
            | Self::Guard(_) => false,
        }
    }
}
