//! Why a clone was not made.

use std::io;
use std::path::PathBuf;

use crate::Phase;
use crate::driver::MonitorError;
use crate::guest::GuestError;
use crate::shortage::is_shortage;
use crate::vm::StartError;
use crate::{Argv, GenerationId};

/// A clone that was not made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[error("no clone of generation {generation}, in phase {}: {failure}", .phase.as_str())]
pub struct CloneError {
    /// Of which generation.
    pub generation: GenerationId,
    /// In which phase it failed.
    pub phase: Phase,
    /// Why.
    #[source]
    pub failure: CloneFailure,
}

impl CloneError {
    /// Whether the generation's files, or this host, are not what they were: no clone can be made from it any more.
    #[must_use]
    pub fn is_generation_damage(&self) -> bool {
        matches!(self.failure, CloneFailure::Foreign { .. }) || self.failure.is_file_damage()
    }
}

/// Why a clone was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloneFailure {
    /// A file of the generation cannot be read.
    #[error("the template's file {} cannot be read: {source}", .path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the generation is not the one that was published.
    #[error(
        "the template's file {} is damaged: its digest is {found} and the manifest says {wanted}; rebuild the template",
        .path.display()
    )]
    FileDamaged {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// What the manifest says.
        wanted: String,
    },
    /// It cannot have an address on AF_VSOCK.
    #[error("{} cannot be opened: {source}", crate::host::VSOCK_DEVICE)]
    Vsock {
        /// Why not.
        source: io::Error,
    },
    /// Another hypervisor, accelerator or processor has made the generation than the one that would restore it.
    #[error("this host cannot restore it any more: {reason}; rebuild the template")]
    Foreign {
        /// In what they differ.
        reason: String,
    },
    /// The hypervisor did not start.
    #[error(transparent)]
    Start(StartError),
    /// The hypervisor did not do what it was told.
    #[error("{source}{}", crate::driver::said(.stderr))]
    Monitor {
        /// What.
        source: MonitorError,
        /// How the process ended, when it did.
        stderr: String,
    },
    /// The guest failed.
    #[error("{source}{}", console_tail(.console))]
    Guest {
        /// How.
        source: GuestError,
        /// The last lines on its console.
        console: String,
    },
    /// A command of `on_clone` failed.
    #[error("the on_clone command {argv:?} failed: {reason}")]
    OnClone {
        /// The command.
        argv: Argv,
        /// How.
        reason: String,
    },
    /// The record cannot be written.
    #[error("the virtual machine's record cannot be written: {source}")]
    Record {
        /// Why not.
        source: io::Error,
    },
}

impl CloneFailure {
    /// Whether a file of the generation is not what was published, for good.
    pub(super) fn is_file_damage(&self) -> bool {
        match self {
            Self::FileDamaged { .. } => true,
            Self::FileUnreadable { source, .. } => !is_shortage(source),
            _ => false,
        }
    }
}

fn console_tail(lines: &str) -> String {
    if lines.is_empty() {
        String::new()
    } else {
        format!("; the end of its console:\n{lines}")
    }
}
