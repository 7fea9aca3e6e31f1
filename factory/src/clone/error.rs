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

    /// Whether this host lacks something at present that has nothing to do with the generation: its hypervisor's program
    /// cannot be read or started, its run directory not be written, or the service has no descriptor or memory left. A clone of any other generation would
    /// have failed in the same way.
    #[must_use]
    pub fn is_shortage_of_host(&self) -> bool {
        match &self.failure {
            CloneFailure::Unverified { .. } => true,
            CloneFailure::Start(StartError::Launch(launch)) => launch.is_spawn(),
            CloneFailure::Start(StartError::Directory { .. }) => true,
            CloneFailure::Record { .. } | CloneFailure::Vsock { .. } => true,
            CloneFailure::FileUnreadable { source, .. } => is_shortage(source),
            _ => false,
        }
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
    /// The hypervisor's program cannot be read: whether this host can restore the generation is not known.
    #[error("{reason}; clones are made again once it can be read")]
    Unverified {
        /// Which program, and why it cannot be read.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LaunchError;

    fn error(failure: CloneFailure) -> CloneError {
        CloneError {
            generation: GenerationId::new(),
            phase: Phase::Load,
            failure,
        }
    }

    #[test]
    fn a_hypervisor_that_is_away_damages_no_generation() {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let unverified = CloneFailure::Unverified {
            reason: "/usr/bin/qemu cannot be read: gone".to_owned(),
        };
        let unstarted = CloneFailure::Start(StartError::Launch(LaunchError::Spawn {
            program: "/usr/bin/qemu".into(),
            source: gone(),
        }));
        for failure in [unverified, unstarted] {
            let error = error(failure);
            assert!(!error.is_generation_damage(), "{error}");
            assert!(error.is_shortage_of_host(), "{error}");
        }
        let foreign = CloneFailure::Foreign {
            reason: "accel was tcg and is kvm".to_owned(),
        };
        let lost = CloneFailure::FileUnreadable {
            path: "memory".into(),
            source: gone(),
        };
        for failure in [foreign, lost] {
            let error = error(failure);
            assert!(error.is_generation_damage(), "{error}");
            assert!(!error.is_shortage_of_host(), "{error}");
        }
    }
}
