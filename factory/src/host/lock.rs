//! One service for a directory.
//!
//! What always holds:
//! - The lock is on the directory itself: no file in it can be removed to let a second service in.
//! - Versions before this one lock the file `lock` in it. That one is locked as well, so that an old service and a new one
//!   exclude each other. It also says who has the lock, for messages and for the guardian.
//! - `lock` is never followed and never truncated unless it is ours: a regular file of this user, under one name, that is
//!   empty or says what a service writes there.
//! - A lock is on what the path leads to at that moment: a directory that was removed or replaced meanwhile is not had.
//! - What a service was just starting when it was killed has copies of its descriptors, and with them the lock, until it runs
//!   its own program. So a lock whose holder is dead is waited for: it is nobody's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Uid;

use super::directory::FileId;
use crate::process::ProcessStamp;

/// The file that says who has the lock.
pub(super) const FILE: &str = "lock";
/// Longest text in it: a process's number and its start time.
const TEXT_MAX_BYTES: usize = 64;

/// How long a lock of a dead holder is waited for. It takes a moment, and longer on a busy host.
const LEFT_MAX: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

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
    /// A service had it that is dead, and something that it was starting has it still.
    #[error(
        "{} is still locked by what the dead vmint service{} had begun to start; hint: `fuser -v {}` tells what that is; end it",
        .path.display(), by(.holder), .path.display()
    )]
    Left {
        /// The directory.
        path: PathBuf,
        /// The dead one's pid.
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
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    directory: Flock<File>,
    id: FileId,
    file: Flock<File>,
}

impl Lock {
    /// Locks a directory that was opened with [`super::directory`]. It blocks while what a dead service has left has it.
    pub(super) fn take(path: &Path, directory: File) -> Result<Self, LockError> {
        let give_up = Instant::now() + LEFT_MAX;
        Self::take_waiting(path, &directory, || {
            std::thread::sleep(LOOK_AGAIN);
            Instant::now() < give_up
        })
    }

    /// `wait` is called while what a dead service has left has the lock, and says whether to look again.
    fn take_waiting(
        path: &Path,
        directory: &File,
        mut wait: impl FnMut() -> bool,
    ) -> Result<Self, LockError> {
        loop {
            let copy = directory.try_clone();
            let copy = copy.map_err(|source| LockError::Failed {
                path: path.to_owned(),
                source,
            })?;
            match Self::take_now(path, copy) {
                Err(LockError::Held { .. }) if is_left(directory) && wait() => {}
                Err(LockError::Held { path, holder }) if is_left(directory) => {
                    return Err(LockError::Left { path, holder });
                }
                outcome => return outcome,
            }
        }
    }

    fn take_now(path: &Path, directory: File) -> Result<Self, LockError> {
        let failed = |source| LockError::Failed {
            path: path.to_owned(),
            source,
        };
        let held = |directory: &File| LockError::Held {
            path: path.to_owned(),
            holder: holder_in(directory),
        };
        let directory = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(directory) => directory,
            Err((directory, Errno::EWOULDBLOCK)) => return Err(held(&directory)),
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let id = FileId::of_file(&directory).map_err(failed)?;
        let file = lock_file(&directory).map_err(failed)?;
        let Some(file) = file else {
            return Err(held(&directory));
        };
        let lock = Self {
            path: path.to_owned(),
            directory,
            id,
            file,
        };
        if !lock.is_on_path() {
            let why = "it was removed or replaced meanwhile";
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, why)));
        }
        Ok(lock)
    }

    /// Whether the path still leads to the directory that is locked. One `lstat`.
    pub(super) fn is_on_path(&self) -> bool {
        FileId::of_path(&self.path).is_ok_and(|id| id == self.id)
    }

    /// Makes the lock's file again where it was removed. Answers whether it was.
    ///
    /// # Errors
    /// When it cannot be made, or an older service has made one.
    pub(super) fn keep_file(&mut self) -> io::Result<bool> {
        let there = FileId::of_path(&self.path.join(FILE));
        if there.is_ok_and(|there| FileId::of_file(&self.file).is_ok_and(|ours| ours == there)) {
            return Ok(false);
        }
        let Some(file) = lock_file(&self.directory)? else {
            return Err(io::Error::other(format!(
                "an older service{} has locked the file {FILE} meanwhile",
                by(&holder_in(&self.directory))
            )));
        };
        self.file = file;
        Ok(true)
    }
}

/// Locks the file in a directory and writes into it who we are; `None` where another process has locked it.
fn lock_file(directory: &File) -> io::Result<Option<Flock<File>>> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | quiet();
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = match openat(directory, FILE, flags, mode) {
        Ok(file) => File::from(file),
        Err(Errno::ELOOP) => return Err(no_lock("it is a symbolic link")),
        Err(errno) => return Err(errno.into()),
    };
    refuse_foreign(&file)?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(errno.into()),
    };
    let me = ProcessStamp::of(std::process::id())?.to_string();
    file.write_all_at(me.as_bytes(), 0)?;
    file.set_len(me.len() as u64)?;
    Ok(Some(file))
}

/// A planted link, pipe or device does nothing.
fn quiet() -> OFlag {
    OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

/// Refuses to write into what no service has made.
fn refuse_foreign(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let me = Uid::effective();
    let why = match () {
        () if !metadata.is_file() => "it is no regular file".to_owned(),
        () if metadata.uid() != me.as_raw() => {
            format!("it belongs to uid {}, and this is uid {me}", metadata.uid())
        }
        () if metadata.nlink() > 1 => format!("it has {} names", metadata.nlink()),
        () if !is_ours(&text_of(file)?) => "it holds something else".to_owned(),
        () => return Ok(()),
    };
    Err(no_lock(&why))
}

fn no_lock(why: &str) -> io::Error {
    let text = format!(
        "the file {FILE} in it is not one of a vmint service: {why}; look at it, and remove it"
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Whether a text is one that a service writes, or that it was about to write when it was killed.
fn is_ours(text: &str) -> bool {
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= TEXT_MAX_BYTES && text.split_ascii_whitespace().all(is_number)
}

/// The beginning of a file, one byte more than a lock's is long.
fn text_of(file: &File) -> io::Result<String> {
    let mut bytes = [0; TEXT_MAX_BYTES + 1];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// Who says in a directory that it has locked it; empty where nobody does.
fn holder_in(directory: &File) -> String {
    let stamp = stamp_of_holder(directory);
    stamp.map_or_else(String::new, |stamp| stamp.pid.to_string())
}

/// Whether who has locked it last is dead.
fn is_left(directory: &File) -> bool {
    stamp_of_holder(directory).is_some_and(|stamp| !stamp.is_alive())
}

fn stamp_of_holder(directory: &File) -> Option<ProcessStamp> {
    let file = openat(directory, FILE, OFlag::O_RDONLY | quiet(), Mode::empty());
    stamp_in(&File::from(file.ok()?))
}

/// Who holds the lock of a directory, or held it last: the lock itself only its holder can feel.
pub(crate) fn holder_of(directory: &Path) -> Option<ProcessStamp> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(quiet().bits())
        .open(directory.join(FILE));
    stamp_in(&file.ok()?)
}

fn stamp_in(file: &File) -> Option<ProcessStamp> {
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    ProcessStamp::parse(&text_of(file).ok()?)
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
