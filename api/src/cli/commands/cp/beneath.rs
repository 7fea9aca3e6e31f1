//! A directory of this host that is held open. Everything below it is reached from its descriptor, name by name, and no
//! link is followed: what an earlier copy has planted there leads nowhere. Only the path that the user typed is followed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// The kernel's limit of a path. A guest's names are taken apart here, so the kernel alone would let them be longer.
const PATH_BYTES_MAX: usize = 4096;

/// A directory, open.
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// Opens what the user typed, through links.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// The directory of this name. A link is none, wherever it leads.
    pub(super) fn below(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self(fd)),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!(
                    "{} is a link or a file here, and a directory in the sandbox; hint: look where it leads, and remove it or copy to another place",
                    name.display()
                ),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// The same; it is made where it is missing, with what the umask leaves of 0777. Says whether it was made.
    pub(super) fn made_below(&self, name: &OsStr) -> io::Result<(Self, bool)> {
        let is_new = match rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        Ok((self.below(name)?, is_new))
    }

    /// The directory at the end of these names.
    pub(super) fn walk(&self, names: &[OsString]) -> io::Result<Self> {
        let start = Self(self.0.try_clone()?);
        names.iter().try_fold(start, |at, name| at.below(name))
    }

    /// The same; what is missing on the way is made.
    pub(super) fn made_walk(&self, names: &[OsString]) -> io::Result<Self> {
        let start = Self(self.0.try_clone()?);
        names
            .iter()
            .try_fold(start, |at, name| Ok(at.made_below(name)?.0))
    }

    /// A new file, which takes the place of any other thing of this name but a directory: links are not followed, devices
    /// and FIFOs not opened. Its mode is what the umask leaves of this one.
    pub(super) fn create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o777);
        self.replacing(name, || {
            Ok(rustix::fs::openat(&self.0, name, flags, mode)?.into())
        })
    }

    /// A symbolic link, in place of any other thing but a directory. Where it leads is of no concern to us: nothing here
    /// follows it.
    pub(super) fn link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        self.replacing(name, || Ok(rustix::fs::symlinkat(target, &self.0, name)?))
    }

    /// A second name for a file, in place of any other thing but a directory.
    pub(super) fn hard_link(&self, name: &OsStr, of: (&Directory, &OsStr)) -> io::Result<()> {
        if name == of.1 && self.is(of.0)? {
            // To make room for it would remove what it leads to.
            let why = format!("{} is a link to itself in the archive", name.display());
            return Err(io::Error::other(why));
        }
        self.replacing(name, || {
            Ok(rustix::fs::linkat(
                &of.0.0,
                of.1,
                &self.0,
                name,
                AtFlags::empty(),
            )?)
        })
    }

    /// Whether it is the same directory, by whatever way it was reached.
    fn is(&self, other: &Self) -> io::Result<bool> {
        let (ours, theirs) = (self.facts()?, other.facts()?);
        Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }

    fn replacing<T>(&self, name: &OsStr, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?;
                make()
            }
            made => made,
        }
    }

    /// What is there under this name, a link as a link. Nothing is opened that could wait or act.
    pub(super) fn look(&self, name: &OsStr) -> io::Result<Found> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(&self.0, name, flags, Mode::empty())?.into();
        let facts = file.metadata()?;
        Ok(Found { file, facts })
    }

    /// Facts of the directory itself.
    pub(super) fn facts(&self) -> io::Result<Metadata> {
        File::from(self.0.try_clone()?).metadata()
    }

    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.path(), Permissions::from_mode(mode))
    }

    /// The names in it, sorted.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(self.path())?;
        let mut names: Vec<_> = entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort_unstable();
        Ok(names)
    }

    /// A path that leads to this very directory, for as long as it is open.
    pub(super) fn path(&self) -> PathBuf {
        itself(&self.0)
    }
}

/// A thing in a directory, held so that nothing else can take its place.
pub(super) struct Found {
    file: File,
    pub(super) facts: Metadata,
}

impl Found {
    /// Opens the file for reading, if it is one: the very one that was looked at.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(itself(&self.file))
    }

    /// The directory, if it is one.
    pub(super) fn into_directory(self) -> Directory {
        Directory(self.file.into())
    }

    /// Where the link leads, if it is one.
    pub(super) fn target(&self) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.file, "", Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }
}

fn itself(fd: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

/// The names that a path of an archive has; none where it leads out of the directory.
pub(super) fn names_of(path: &Path) -> io::Result<Option<Vec<OsString>>> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        let why = format!("a name is longer than {PATH_BYTES_MAX} bytes");
        return Err(io::Error::other(why));
    }
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_owned()),
            // An absolute name means a place inside.
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Ok(None),
        }
    }
    Ok(Some(names))
}
