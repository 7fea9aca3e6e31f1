//! One service for a directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::process::ProcessStamp;

/// The lock's file. It stays: removing a lock file that somebody else has just opened would give two locks.
pub(super) const FILE: &str = "lock";

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another service has it.
    #[error(
        "{} is used by another vmint service{}: stop that one, or give this one a run_dir and template_path of its own",
        .path.display(), by(.holder)
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// The other one's pid, as it wrote it into the lock.
        holder: String,
    },
    /// The lock cannot be made.
    #[error("cannot lock {}: {source}", .path.display())]
    Failed {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn by(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" (process {text})")
    }
}

/// A lock on a directory. The kernel takes it back when the process ends, however it ends.
pub(super) struct Lock(#[allow(dead_code)] Flock<File>);

impl Lock {
    pub(super) fn take(directory: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Failed {
            path: directory.to_owned(),
            source,
        };
        let path = directory.join(FILE);
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        match Flock::lock(open.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0).map_err(failed)?;
                let me = ProcessStamp::of(std::process::id()).map_err(failed)?;
                write!(lock, "{me}").map_err(failed)?;
                Ok(Self(lock))
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let pid = text.split_ascii_whitespace().next();
                let holder = pid.unwrap_or_default().to_owned();
                Err(LockError::Held {
                    path: directory.to_owned(),
                    holder,
                })
            }
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

/// Who holds the lock of a directory, or held it last: the lock itself only its holder can feel.
pub(crate) fn holder_of(directory: &Path) -> Option<ProcessStamp> {
    ProcessStamp::parse(&std::fs::read_to_string(directory.join(FILE)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_is_first() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let first = Lock::take(folder.path())?;
        let Err(LockError::Held { holder, .. }) = Lock::take(folder.path()) else {
            anyhow::bail!("two locks on one directory");
        };
        assert_eq!(holder, std::process::id().to_string());
        drop(first);
        assert!(Lock::take(folder.path()).is_ok());
        Ok(())
    }
}
