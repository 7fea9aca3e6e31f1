//! How a command fails, and with which exit code.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
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
    /// A file or folder of this host.
    #[error("{}: {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The service works on it for longer than this command waits.
    #[error("{0}")]
    TimedOut(String),
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
    /// A command line that cannot be parsed.
    #[must_use]
    pub fn usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let text = text.trim_end();
        Self::Usage(text.strip_prefix("error: ").unwrap_or(text).to_owned())
    }

    /// Standard output failed.
    pub(crate) fn output(source: io::Error) -> Self {
        Self::Stream {
            what: "cannot write to standard output",
            source,
        }
    }

    /// The error as `--json` prints it: the problem that the service answered, or a code of the program's own.
    #[must_use]
    pub fn json(&self) -> Value {
        let own = |code: &str| json!({ "code": code, "detail": self.to_string() });
        match self {
            Self::Told(error) => error.json(),
            Self::Client(ClientError::Refused(refusal)) => refusal.problem.clone(),
            Self::Usage(_) => own("usage"),
            Self::Config(error) => {
                let mut json = own("configuration");
                json["problems"] = error.problems_json();
                json
            }
            Self::TimedOut(_) => own("timeout"),
            Self::Client(_) => own("unreachable"),
            Self::Serve(_) => own("serve"),
            Self::Clean(_) => own("clean"),
            Self::Local { .. } => own("file"),
            Self::Stream { .. } => own("stream"),
            Self::Guard(_) => own("guard"),
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
                | ClientError::Foreign { .. }
                | ClientError::Silent { .. }
                | ClientError::Broken { .. }
                | ClientError::Lost { .. },
            ) => 69,
            Self::Client(ClientError::Refused(_))
            | Self::Serve(_)
            | Self::Clean(_)
            | Self::Local { .. }
            | Self::TimedOut(_)
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
            | Self::Local { .. }
            | Self::Clean(_)
            | Self::TimedOut(_)
            | Self::Guard(_) => false,
        }
    }
}
