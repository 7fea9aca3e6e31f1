//! Opening a directory whose content nobody else can swap.
//!
//! The service works under two paths by name. A name means something only while others cannot change what it leads to,
//! so each component of the path is opened by itself, beginning at `/`, and looked at before the next one is:
//!
//! - the directory itself is a directory and no link, belongs to us, and others may not write to it;
//! - every directory above it, and every link on the way, belongs to root or to us; where others may write to one it is
//!   sticky, as `/tmp` is: then what belongs to us in it stays ours.
//!
//! This holds for root and for plain users, for `serve` and for `clean`.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::Uid;

/// Links on the way to a directory, at most: the kernel's own limit.
const LINKS_MAX: usize = 40;
/// Write permission for the group or for others.
const OTHERS_WRITE: u32 = 0o022;
/// The sticky bit.
const STICKY: u32 = 0o1000;
/// Only to look at: what is opened so can be a link, and nothing happens in a device.
const LOOK: OFlag = OFlag::O_PATH
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
/// A directory, to read, to lock and to change.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Which file a name leads to. While the file is held open no other one can have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that a path leads to now; the last component is not followed.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of_path(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// The file behind a descriptor.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Opens a directory that exists.
///
/// # Errors
/// When there is none, or others can change it or the way to it: the text names the component, its owner and a hint.
pub(super) fn open_own(path: &Path) -> io::Result<File> {
    Walk::new(path, None)?.into_end()
}

/// Opens a directory, and makes it and those above it where they are missing, each with its mode whatever the umask is.
///
/// # Errors
/// As [`open_own`], and when it cannot be made.
pub(super) fn make_own(path: &Path, mode: u32, above: u32) -> io::Result<File> {
    let modes = Modes {
        own: Mode::from_bits_truncate(mode),
        above: Mode::from_bits_truncate(above),
    };
    Walk::new(path, Some(modes))?.into_end()
}

/// What directories are made with.
#[derive(Clone, Copy)]
struct Modes {
    own: Mode,
    above: Mode,
}

/// The way from `/` to a directory.
struct Walk {
    /// How the path looks as far as it was walked, for messages.
    seen: PathBuf,
    at: OwnedFd,
    todo: VecDeque<OsString>,
    make: Option<Modes>,
    links: usize,
}

impl Walk {
    fn new(path: &Path, make: Option<Modes>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let root = open("/", LOOK | OFlag::O_DIRECTORY, Mode::empty())?;
        refuse_foreign(Path::new("/"), &fstat(&root)?, false)?;
        Ok(Self {
            seen: PathBuf::from("/"),
            at: root,
            todo: names(&path).collect(),
            make,
            links: 0,
        })
    }

    fn into_end(mut self) -> io::Result<File> {
        while let Some(name) = self.todo.pop_front() {
            self.step(&name)?;
        }
        let opened = openat(&self.at, ".", DIRECTORY, Mode::empty());
        opened
            .map(File::from)
            .map_err(|errno| in_words(&self.seen, errno))
    }

    fn step(&mut self, name: &OsStr) -> io::Result<()> {
        let is_last = self.todo.is_empty();
        let path = self.seen.join(name);
        let entry = match openat(&self.at, name, LOOK, Mode::empty()) {
            Err(Errno::ENOENT) => match self.make {
                Some(modes) if is_last => self.make(name, modes.own),
                Some(modes) => self.make(name, modes.above),
                None => Err(Errno::ENOENT),
            },
            opened => opened,
        };
        let entry = entry.map_err(|errno| in_words(&path, errno))?;
        let stat = fstat(&entry)?;
        match kind_of(&stat) {
            SFlag::S_IFLNK if is_last => {
                let why = "is a symbolic link; name the directory that it leads to".to_owned();
                return Err(refusal(&path, &why));
            }
            SFlag::S_IFLNK => return self.follow(&path, &entry, &stat),
            SFlag::S_IFDIR => refuse_foreign(&path, &stat, is_last)?,
            _ => return Err(in_words(&path, Errno::ENOTDIR)),
        }
        match name == ".." {
            true => drop(self.seen.pop()),
            false => self.seen = path,
        }
        self.at = entry;
        Ok(())
    }

    /// Makes a directory. Where somebody else has made one in the same moment, that one is looked at.
    fn make(&self, name: &OsStr, mode: Mode) -> nix::Result<OwnedFd> {
        match mkdirat(&self.at, name, mode) {
            Err(Errno::EEXIST) => openat(&self.at, name, LOOK, Mode::empty()),
            Err(errno) => Err(errno),
            Ok(()) => {
                let made = openat(&self.at, name, DIRECTORY, Mode::empty())?;
                // The umask may have taken some of it.
                fchmod(&made, mode)?;
                Ok(made)
            }
        }
    }

    /// Puts what a link says in its place.
    fn follow(&mut self, path: &Path, link: &OwnedFd, stat: &FileStat) -> io::Result<()> {
        if !is_ours_or_roots(stat.st_uid) {
            return Err(refusal(path, &owned_by(stat.st_uid)));
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(in_words(path, Errno::ELOOP));
        }
        let target = PathBuf::from(readlinkat(link, "")?);
        if target.is_absolute() {
            self.at = open("/", LOOK | OFlag::O_DIRECTORY, Mode::empty())?;
            self.seen = PathBuf::from("/");
        }
        let rest = std::mem::take(&mut self.todo);
        self.todo = names(&target).chain(rest).collect();
        Ok(())
    }
}

/// The components of a path that lead anywhere.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn is_ours_or_roots(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

fn owned_by(uid: u32) -> String {
    format!(
        "belongs to uid {uid}, who can change what is in it, and this is uid {}",
        Uid::effective()
    )
}

/// Refuses a directory whose content others can change.
fn refuse_foreign(path: &Path, stat: &FileStat, is_last: bool) -> io::Result<()> {
    let (uid, mode) = (stat.st_uid, stat.st_mode);
    let is_owner_right = match is_last {
        true => uid == Uid::effective().as_raw(),
        false => is_ours_or_roots(uid),
    };
    if !is_owner_right {
        return Err(refusal(path, &owned_by(uid)));
    }
    let is_sticky = mode & STICKY != 0;
    if mode & OTHERS_WRITE != 0 && (is_last || !is_sticky) {
        let why = format!(
            "can be written to by others than its owner, uid {uid} (mode {:o})",
            mode & 0o7777
        );
        return Err(refusal(path, &why));
    }
    Ok(())
}

fn refusal(path: &Path, why: &str) -> io::Error {
    let hint = "remove it or change its owner and mode, or set host.run_dir and host.template_path to directories \
                that only this user and root can change";
    let text = format!("{} {why}; {hint}", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

fn in_words(path: &Path, errno: Errno) -> io::Error {
    let source = io::Error::from(errno);
    crate::shortage::in_words(format!("{}: {source}", path.display()), source)
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
