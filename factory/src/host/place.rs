//! The two directories that a service has on its host, and keeps: the run directory and the template path.
//!
//! ```text
//!            take()                   the name leads elsewhere             take() again
//!  (nothing) ------> ours: locked -------------------------------> lost --------------> ours: made again, or emptied
//!                                                                   |
//!                                                                   | another service has it
//!                                                                   v
//!                                                                  another's: nothing in it is touched
//! ```
//!
//! What always holds:
//! - Both can go at any time: logind's RemoveIPC and tmpfiles remove them, and an administrator moves one or unmounts a
//!   tmpfs. Before anything is made in one of them, and every few seconds besides, [`Place::renew`] compares what the name leads to with
//!   what is locked: one `lstat`. A directory that is gone is made again, as at the start, tmpfs included.
//! - A name that leads to a directory which another service has locked is that service's. This one makes, publishes and
//!   removes nothing by that name from then on; who asks is told [`LockError::Held`]. What it still removes are
//!   directories of single machines and generations, whose names are drawn at random and never used twice.
//! - What was in a removed directory is not made again here: clones have their generation's files open, generations are
//!   built anew by whoever needs them, and the records of sandboxes are written again (`vm/lost.rs`).

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use nix::unistd::Uid;

use super::directory;
use super::lock::{Lock, LockError};
use super::tmpfs::{self, TmpfsError};
use crate::sync;

/// How often a directory is opened that is removed at the same time.
const TRIES: usize = 3;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It cannot be made, or others can change it.
    #[error("cannot use {} as run_dir: {source}", .path.display())]
    RunDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another service has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The generations' file system.
    #[error(transparent)]
    Tmpfs(#[from] TmpfsError),
}

impl PlaceError {
    /// Whether another service has the directory.
    #[must_use]
    pub fn is_anothers(&self) -> bool {
        matches!(self, Self::Lock(LockError::Held { .. }))
    }

    /// As an error of the system.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

/// What a directory is for.
#[derive(Debug)]
enum Purpose {
    Run,
    /// As root hypervisors pass through it.
    Templates,
}

/// A directory of this service.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    purpose: Purpose,
    lock: Mutex<Lock>,
}

impl Place {
    /// Makes and locks the directory of the machines.
    pub(crate) fn run_dir(path: &Path) -> Result<Self, PlaceError> {
        Self::new(path, Purpose::Run)
    }

    /// Makes and locks the directory of the generations.
    pub(super) fn template_path(path: &Path) -> Result<Self, PlaceError> {
        Self::new(path, Purpose::Templates)
    }

    fn new(path: &Path, purpose: Purpose) -> Result<Self, PlaceError> {
        let lock = Mutex::new(take(path, &purpose)?);
        let path = path.to_owned();
        Ok(Self {
            path,
            purpose,
            lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory again if it is gone, and locks it. Answers whether it was.
    ///
    /// # Errors
    /// When it cannot be made, or another service has what the name leads to by now.
    pub(crate) fn renew(&self) -> Result<bool, PlaceError> {
        let mut lock = self.lock();
        if lock.is_on_path() {
            return Ok(false);
        }
        *lock = take(&self.path, &self.purpose)?;
        tracing::warn!(path = %self.path.display(), "a directory of the service was removed, and is made again");
        Ok(true)
    }

    /// The same, and the lock's file with it, which says whose it is.
    ///
    /// # Errors
    /// As [`Place::renew`].
    pub(super) fn keep(&self) -> Result<(), PlaceError> {
        if self.renew()? {
            return Ok(());
        }
        match self.lock().keep_file() {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(path = %self.path.display(), "the lock's file was removed, and is made again");
            }
            Err(source) => {
                let path = self.path.clone();
                return Err(LockError::Failed { path, source }.into());
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Lock> {
        sync::lock(&self.lock)
    }
}

fn take(path: &Path, purpose: &Purpose) -> Result<Lock, PlaceError> {
    let mut tries = 1;
    loop {
        let directory = match purpose {
            Purpose::Run => make_run_dir(path)?,
            Purpose::Templates => tmpfs::prepare(path)?,
        };
        let shared = directory.try_clone();
        let lock = match Lock::take(path, directory) {
            Err(LockError::Failed { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < TRIES =>
            {
                tries += 1;
                continue;
            }
            taken => taken?,
        };
        if let Purpose::Templates = purpose {
            let passable = Permissions::from_mode(tmpfs::passable_mode());
            let set = shared.and_then(|directory| directory.set_permissions(passable));
            set.map_err(|source| TmpfsError::Directory {
                path: path.to_owned(),
                source,
            })?;
        }
        return Ok(lock);
    }
}

/// The mode of the run directory, and of whatever is missing above it or above the template path, which lies in the run
/// directory by default: as root others may pass through it, to a socket whose rights are set; a plain user's is theirs
/// alone.
pub(super) fn open_mode() -> u32 {
    if Uid::effective().is_root() {
        0o755
    } else {
        0o700
    }
}

fn make_run_dir(path: &Path) -> Result<File, PlaceError> {
    directory::make_own(path, open_mode(), open_mode()).map_err(|source| PlaceError::RunDir {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn kinds(outcome: Result<bool, PlaceError>) -> &'static str {
        match outcome {
            Ok(false) => "as it was",
            Ok(true) => "made again",
            Err(error) if error.is_anothers() => "another's",
            Err(_) => "unusable",
        }
    }

    #[test]
    fn a_directory_that_is_removed_is_made_again_and_is_locked() -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in("/dev/shm")?;
        let path = folder.path().join("a/place");
        type Make = fn(&Path) -> Result<Place, PlaceError>;
        let makes: [Make; 2] = [Place::run_dir, Place::template_path];
        for make in makes {
            let place = make(&path)?;
            assert_eq!(kinds(place.renew()), "as it was");
            fs::remove_dir_all(folder.path().join("a"))?;
            assert_eq!(kinds(place.renew()), "made again");
            assert_eq!(kinds(place.renew()), "as it was");
            let second = make(&path).map(|_| true);
            assert_eq!(kinds(second), "another's", "it is not locked");
            fs::remove_file(path.join("lock"))?;
            place.keep()?;
            assert!(path.join("lock").exists());
        }
        Ok(())
    }

    fn mode_of(path: &Path) -> anyhow::Result<u32> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
    }

    #[test]
    fn a_run_directory_that_is_made_on_the_way_to_the_template_path_has_its_own_mode()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in("/dev/shm")?;
        let run = folder.path().join("run");
        let place = Place::template_path(&run.join("template"))?;
        assert_eq!(mode_of(&run)?, open_mode());
        assert_eq!(mode_of(place.path())?, tmpfs::passable_mode());
        fs::remove_dir_all(&run)?;
        assert_eq!(kinds(place.renew()), "made again");
        assert_eq!(mode_of(&run)?, open_mode());
        Ok(())
    }

    #[test]
    fn nothing_is_made_above_a_directory_of_others() -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in("/dev/shm")?;
        let planted = folder.path().join("planted");
        fs::create_dir(&planted)?;
        fs::set_permissions(&planted, Permissions::from_mode(0o777))?;
        let refused = Place::template_path(&planted.join("b/t")).map(|_| true);
        assert_eq!(kinds(refused), "unusable");
        assert!(
            !planted.join("b").exists(),
            "it was made before it was looked at"
        );
        Ok(())
    }

    #[test]
    fn a_directory_that_another_service_has_made_is_its_own() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("run");
        let first = Place::run_dir(&path)?;
        fs::remove_dir_all(&path)?;
        let second = Place::run_dir(&path)?;
        assert_eq!(kinds(first.renew()), "another's");
        assert_eq!(kinds(second.renew()), "as it was");
        drop(second);
        assert_eq!(kinds(first.renew()), "made again", "it is nobody's now");
        fs::remove_dir_all(&path)?;
        fs::write(&path, "a file")?;
        assert_eq!(kinds(first.renew()), "unusable");
        Ok(())
    }
}
