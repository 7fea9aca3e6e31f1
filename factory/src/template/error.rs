//! Why a build failed.

use std::io;
use std::path::PathBuf;

use super::reserve::RoomError;
use crate::clone::CloneError;
use crate::driver::MonitorError;
use crate::guest::{ExecError, GuestError};
use crate::vm::StartError;
use crate::{Argv, text};

/// A build that failed. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// This host's hypervisor cannot make a template of this machine.
    #[error("the hypervisor cannot make a template of machine {machine}: it has no {lacks}")]
    Unfit {
        /// The board.
        machine: &'static str,
        /// What it has not.
        lacks: &'static str,
    },
    /// The hypervisor's program has changed since the start, and the new one does not work.
    #[error(transparent)]
    Hypervisor(#[from] crate::qemu::ProbeError),
    /// Its caller has gone before it was published.
    #[error("the build was given up before its generation was published")]
    Dropped,
    /// There is no room for the memory.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The hypervisor did not start.
    #[error("the template does not start: {0}")]
    Start(#[from] StartError),
    /// The guest never answered.
    #[error("the guest did not get ready: {source}{}", tail_of(.console))]
    NeverReady {
        /// Why not.
        source: GuestError,
        /// The last lines on its console.
        console: String,
    },
    /// A warm-up command failed.
    #[error("the warm-up command {argv:?} failed: {reason}")]
    Warmup {
        /// The command.
        argv: Argv,
        /// How.
        reason: String,
    },
    /// The guest failed between its first answer and its save.
    #[error("the guest failed before it was saved: {source}{}", tail_of(.console))]
    Guest {
        /// How.
        source: GuestError,
        /// The last lines on its console.
        console: String,
    },
    /// The state was not saved.
    #[error("the template cannot be saved: {0}")]
    Save(#[from] MonitorError),
    /// The state was not saved, for want of room: the hypervisor says no more than that it could not write.
    #[error("the template cannot be saved: {} is full ({source})", .path.display())]
    Full {
        /// The template path.
        path: PathBuf,
        /// What the hypervisor says.
        source: MonitorError,
    },
    /// A canary did not start.
    #[error("canary {number} does not start: {source}")]
    Canary {
        /// Which one, from 1.
        number: usize,
        /// Why not.
        source: Box<CloneError>,
    },
    /// Two canaries have something in common that must differ.
    #[error("two canaries have the same {what}: clones of this template would not be unique")]
    NotUnique {
        /// What.
        what: &'static str,
    },
    /// A verification command failed in a canary.
    #[error("the verification command {argv:?} failed in a canary: {reason}")]
    Verify {
        /// The command.
        argv: Argv,
        /// How.
        reason: String,
    },
    /// A clone has written to the memory file.
    #[error(
        "the memory file has changed while canaries ran on it: clones are not isolated from each other"
    )]
    MemoryChanged,
}

impl BuildError {
    /// Whether it is for want of memory, or of room on the file system of the generations: there would be more without some
    /// of those that are kept.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        let is_full = |e: &io::Error| e.kind() == io::ErrorKind::StorageFull;
        match self {
            Self::Room(RoomError::FileSystem { .. } | RoomError::Host { .. })
            | Self::Full { .. } => true,
            Self::Room(RoomError::Allocate { source, .. }) | Self::File { source, .. } => {
                is_full(source)
            }
            _ => false,
        }
    }
}

/// The last console lines, as the end of a message.
fn tail_of(lines: &str) -> String {
    if lines.is_empty() {
        "; its console says nothing".to_owned()
    } else {
        format!("; the end of its console:\n{lines}")
    }
}

/// How a command in the guest failed, in words; `None` when it did not.
pub(crate) fn failure(outcome: Result<crate::ExecOutcome, ExecError>) -> Option<String> {
    const SHOWN_BYTES: usize = 400;
    match outcome {
        Err(error) => Some(error.to_string()),
        Ok(end) if end.exit_code == Some(0) => None,
        Ok(end) => {
            let stderr = String::from_utf8_lossy(
                &end.stderr[end.stderr.len().saturating_sub(SHOWN_BYTES)..],
            )
            .into_owned();
            let how = match (end.exit_code, end.signal) {
                (Some(code), _) => format!("it exited with {code}"),
                (None, Some(signal)) => format!("it was killed by signal {signal}"),
                (None, None) => "it ended".to_owned(),
            };
            Some(format!(
                "{how} after {}{}",
                text::duration(end.elapsed),
                crate::driver::said(stderr.trim())
            ))
        }
    }
}
