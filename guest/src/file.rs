//! A new file that is seen whole or not at all.
//!
//! It is written beside its place and renamed at the end. One that is dropped before is removed again. What was at the
//! place stays until then, and hands its owner and mode on; a symbolic link there is followed, so that what it leads to
//! is the file that is replaced, or made.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Deserializer};

use crate::json::{self, Object};

/// Of folders that are missing.
const FOLDER_MODE: u32 = 0o755;
/// Of a file that was not there, where nothing else is said.
const NEW_MODE: u32 = 0o644;
/// No other program reads it before it has the mode that it is to have.
const UNFINISHED_MODE: u32 = 0o600;
/// What a file's mode may hold: rights, set-id and the sticky bit.
pub(crate) const MODE_BITS: u32 = 0o7777;
/// A name may be there from an agent that was killed, but not many of them.
const NAMES_MAX: u32 = 16;
/// As many as the kernel follows.
const LINKS_MAX: u32 = 40;

/// A user and a group, by number. Without a group it stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owner {
    #[serde(deserialize_with = "id")]
    pub(crate) uid: u32,
    #[serde(default, deserialize_with = "id")]
    pub(crate) gid: Option<u32>,
}

/// What a file is to be. What is not said is as it was, or 0644 and root's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    pub(crate) path: String,
    #[serde(default, deserialize_with = "mode")]
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<Object<Owner>>,
}

/// One, or perhaps one. The highest number means "nobody changes" to the kernel.
fn id<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Copy + Into<Option<u32>>,
{
    let is_right = |id: &T| (*id).into() != Some(u32::MAX);
    json::checked(from, is_right, "expected a number below 4294967295")
}

pub(crate) fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let is_right = |mode: &Option<u32>| mode.is_none_or(|mode| mode <= MODE_BITS);
    json::checked(
        from,
        is_right,
        "expected a mode of at most 4095 (octal 7777)",
    )
}

pub(crate) struct NewFile {
    file: File,
    mode: u32,
    /// The user and the group.
    owner: Option<(u32, u32)>,
    beside: PathBuf,
    /// `None` once it is in its place.
    place: Option<PathBuf>,
    size_bytes: u64,
}

impl NewFile {
    /// Begins a file at an absolute path.
    pub(crate) fn create(wanted: &Wanted) -> io::Result<Self> {
        let (place, there) = place_of(&wanted.path)?;
        let folder = place.parent().unwrap_or(Path::new("/"));
        make_folder(folder)?;
        let (file, beside) = open_beside(folder)?;
        let known = there.as_ref();
        let mode = wanted.mode.or(known.map(fs::Metadata::mode));
        let owner = known.map(|there| (there.uid(), there.gid()));
        let group = owner.map_or(0, |(_, gid)| gid);
        let asked = wanted.owner.as_ref();
        let asked = asked.map(|Object(Owner { uid, gid })| (*uid, gid.unwrap_or(group)));
        Ok(Self {
            file,
            mode: mode.unwrap_or(NEW_MODE) & MODE_BITS,
            owner: asked.or(owner),
            beside,
            place: Some(place),
            size_bytes: 0,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Puts it into its place; returns its size.
    pub(crate) fn publish(mut self) -> io::Result<u64> {
        // In this order: a new owner takes the set-id bits away.
        if let Some((uid, gid)) = self.owner {
            self.give_to(uid, gid)?;
        }
        self.file
            .set_permissions(Permissions::from_mode(self.mode))?;
        if let Some(place) = &self.place {
            fs::rename(&self.beside, place)?;
            self.place = None;
        }
        Ok(self.size_bytes)
    }

    /// Not asked of the kernel where it is so: that may be more than this process may do.
    fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let own = self.file.metadata()?;
        if (own.uid(), own.gid()) == (uid, gid) {
            return Ok(());
        }
        fchown(&self.file, Some(uid), Some(gid))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.place.is_some() {
            // A program that removed it before us has done the same.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder);
    made.map_err(|error| match error.kind() {
        // There is something of this name, and it is no folder.
        io::ErrorKind::AlreadyExists => io::Error::from_raw_os_error(libc::ENOTDIR),
        _ => error,
    })
}

/// The place, and what is there. Says at once what the rename would say only after all was written.
fn place_of(path: &str) -> io::Result<(PathBuf, Option<fs::Metadata>)> {
    let errno = io::Error::from_raw_os_error;
    let path = Path::new(path);
    if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
        return Err(errno(libc::EINVAL));
    }
    if names_folder(path) {
        return Err(errno(libc::EISDIR));
    }
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(errno(libc::EISDIR)),
        Ok(there) if !there.is_file() => Err(errno(libc::EINVAL)),
        Ok(there) => Ok((fs::canonicalize(path)?, Some(there))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((named_by_links(path)?, None)),
        Err(error) => Err(error),
    }
}

fn names_folder(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none()
}

/// Nothing is there: what a link names, or a link to a link, or else the path itself.
fn named_by_links(path: &Path) -> io::Result<PathBuf> {
    let mut place = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&place) {
            Ok(target) => place = place.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(place),
        }
        if names_folder(&place) {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn open_beside(folder: &Path) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut names_left = NAMES_MAX;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let beside = folder.join(format!(".vmint-{}-{number}", std::process::id()));
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(UNFINISHED_MODE)
            .open(&beside);
        match opened {
            Ok(file) => return Ok((file, beside)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && names_left > 0 => {
                names_left -= 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory of a test's own; it goes with the value.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vmint-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a fresh directory");
            Self(path)
        }

        pub(crate) fn path(&self, name: &str) -> String {
            self.0.join(name).to_str().expect("a plain path").to_owned()
        }

        pub(crate) fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("it is there");
            let mut names: Vec<String> = entries
                .map(|entry| entry.expect("readable").file_name())
                .map(|name| name.to_string_lossy().into())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn wanted(path: String) -> Wanted {
        Wanted {
            path,
            ..Wanted::default()
        }
    }

    fn store(wanted: &Wanted, text: &str) {
        let mut file = NewFile::create(wanted).expect("a place");
        file.write(text.as_bytes()).expect("room");
        let size = file.publish().expect("renamed");
        assert_eq!(size, text.len() as u64);
    }

    fn mode(path: &str) -> u32 {
        fs::metadata(path).expect("there").mode() & MODE_BITS
    }

    fn errno(path: &str) -> Option<i32> {
        NewFile::create(&wanted(path.to_owned()))
            .err()
            .and_then(|error| error.raw_os_error())
    }

    #[test]
    fn is_seen_whole_with_its_mode_and_folders() {
        let folder = Folder::new("file-whole");
        let path = folder.path("a/b/c");
        let mut file = NewFile::create(&Wanted {
            mode: Some(0o4750),
            ..wanted(path.clone())
        })
        .expect("a place");
        file.write(b"one").expect("room");
        assert!(!Path::new(&path).exists());
        file.write(b"two").expect("room");
        assert_eq!(file.publish().expect("renamed"), 6);
        assert_eq!(fs::read(&path).expect("there"), b"onetwo");
        assert_eq!((mode(&path), mode(&folder.path("a"))), (0o4750, 0o755));
        assert_eq!(fs::read_dir(folder.path("a/b")).expect("there").count(), 1);
        store(&wanted(folder.path("plain")), "");
        assert_eq!(mode(&folder.path("plain")), 0o644);
    }

    #[test]
    fn what_is_dropped_leaves_what_was_there() {
        let folder = Folder::new("file-dropped");
        fs::write(folder.path("x"), "old").expect("room");
        let mut file = NewFile::create(&wanted(folder.path("x"))).expect("a place");
        file.write(b"new").expect("room");
        drop(file);
        assert_eq!(folder.names(), ["x"]);
        assert_eq!(fs::read(folder.path("x")).expect("there"), b"old");
    }

    #[test]
    fn what_was_there_keeps_its_mode_and_owner_unless_told_otherwise() {
        let folder = Folder::new("file-kept");
        let path = folder.path("x");
        fs::write(&path, "old").expect("room");
        fs::set_permissions(&path, Permissions::from_mode(0o6751)).expect("our own");
        store(&wanted(path.clone()), "new");
        assert_eq!(mode(&path), 0o6751);
        store(
            &Wanted {
                mode: Some(0o600),
                ..wanted(path.clone())
            },
            "newer",
        );
        assert_eq!(mode(&path), 0o600);
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let owner = |path: &str| {
            let there = fs::metadata(path).expect("there");
            (there.uid(), there.gid())
        };
        for (uid, gid, is) in [(12, Some(34), (12, 34)), (13, None, (13, 34))] {
            let to = Wanted {
                owner: Some(Object(Owner { uid, gid })),
                ..wanted(path.clone())
            };
            store(&to, "his");
            assert_eq!(owner(&path), is);
        }
        store(&wanted(path.clone()), "his again");
        assert_eq!((owner(&path), mode(&path)), ((13, 34), 0o600));
    }

    #[test]
    fn links_are_followed_to_what_is_there_and_to_what_is_not() {
        let folder = Folder::new("file-link");
        fs::write(folder.path("x"), "old").expect("room");
        symlink("x", folder.path("link")).expect("a link");
        store(&wanted(folder.path("link")), "new");
        assert_eq!(fs::read(folder.path("x")).expect("there"), b"new");
        symlink("sub/made", folder.path("dangling")).expect("a link");
        symlink("dangling", folder.path("second")).expect("a link");
        store(&wanted(folder.path("second")), "made");
        assert_eq!(fs::read(folder.path("sub/made")).expect("there"), b"made");
        assert_eq!(folder.names(), ["dangling", "link", "second", "sub", "x"]);
        assert!(fs::symlink_metadata(folder.path("dangling")).is_ok_and(|link| link.is_symlink()));
        symlink("loop-b", folder.path("loop-a")).expect("a link");
        symlink("loop-a", folder.path("loop-b")).expect("a link");
        assert_eq!(errno(&folder.path("loop-a")), Some(libc::ELOOP));
        symlink("nowhere/", folder.path("to-folder")).expect("a link");
        assert_eq!(errno(&folder.path("to-folder")), Some(libc::EISDIR));
    }

    #[test]
    fn says_at_once_what_is_no_place_for_a_file() {
        let folder = Folder::new("file-refused");
        fs::write(folder.path("x"), "").expect("room");
        assert_eq!(errno("relative"), Some(libc::EINVAL));
        assert_eq!(errno(""), Some(libc::EINVAL));
        assert_eq!(errno("/tmp/a\0b"), Some(libc::EINVAL));
        assert_eq!(errno("/"), Some(libc::EISDIR));
        assert_eq!(errno(&folder.path("new/")), Some(libc::EISDIR));
        assert_eq!(errno(&folder.path("")), Some(libc::EISDIR));
        assert_eq!(errno("/dev/null"), Some(libc::EINVAL));
        assert_eq!(errno(&folder.path("x/y")), Some(libc::ENOTDIR));
        let long = folder.path(&"n".repeat(256));
        assert_eq!(errno(&long), Some(libc::ENAMETOOLONG));
        assert_eq!(folder.names(), ["x"]);
    }
}
