//! A new file that is seen whole or not at all.
//!
//! It is written beside its place and renamed at the end. One that is dropped before is removed again. What was at the
//! place stays until then; a symbolic link there is followed, so that the file that it leads to is the one replaced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Of folders that are missing.
const FOLDER_MODE: u32 = 0o755;
/// Nobody else reads it before it has the mode that it is to have.
const UNFINISHED_MODE: u32 = 0o600;
/// What a file's mode may hold: rights, set-id and the sticky bit.
const MODE_BITS: u32 = 0o7777;
/// A name may be there from an agent that was killed, but not many of them.
const NAMES_MAX: u32 = 16;

pub(crate) struct NewFile {
    file: File,
    mode: u32,
    beside: PathBuf,
    /// `None` once it is in its place.
    place: Option<PathBuf>,
    size_bytes: u64,
}

impl NewFile {
    /// Begins a file at an absolute path.
    pub(crate) fn create(path: &str, mode: u32) -> io::Result<Self> {
        let place = place_of(path)?;
        let folder = place.parent().unwrap_or(Path::new("/"));
        make_folder(folder)?;
        let (file, beside) = open_beside(folder)?;
        Ok(Self {
            file,
            mode: mode & MODE_BITS,
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
        self.file
            .set_permissions(fs::Permissions::from_mode(self.mode))?;
        if let Some(place) = &self.place {
            fs::rename(&self.beside, place)?;
            self.place = None;
        }
        Ok(self.size_bytes)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.place.is_some() {
            // Whoever removed it before us has done the same.
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

/// Says at once what the rename would say only after all was written.
fn place_of(path: &str) -> io::Result<PathBuf> {
    let errno = io::Error::from_raw_os_error;
    let path = Path::new(path);
    if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
        return Err(errno(libc::EINVAL));
    }
    if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
        return Err(errno(libc::EISDIR));
    }
    // Missing, or a link to what is missing: the place is the one that was named.
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&place) {
        Ok(there) if there.is_dir() => Err(errno(libc::EISDIR)),
        Ok(there) if !there.is_file() => Err(errno(libc::EINVAL)),
        _ => Ok(place),
    }
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
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vmint-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a fresh directory");
            Self(path)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).to_str().expect("a plain path").to_owned()
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(&self.0)
                .expect("it is there")
                .map(|entry| {
                    entry
                        .expect("readable")
                        .file_name()
                        .to_string_lossy()
                        .into()
                })
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

    fn errno(path: &str) -> Option<i32> {
        NewFile::create(path, 0o644)
            .err()
            .and_then(|error| error.raw_os_error())
    }

    #[test]
    fn is_seen_whole_with_its_mode_and_folders() {
        let folder = Folder::new("file-whole");
        let path = folder.path("a/b/c");
        let mut file = NewFile::create(&path, 0o4750).expect("a place");
        file.write(b"one").expect("room");
        assert!(!Path::new(&path).exists());
        file.write(b"two").expect("room");
        assert_eq!(file.publish().expect("renamed"), 6);
        assert_eq!(fs::read(&path).expect("there"), b"onetwo");
        let mode = |path: &str| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&folder.path("a"))), (0o4750, 0o755));
        assert_eq!(fs::read_dir(folder.path("a/b")).expect("there").count(), 1);
    }

    #[test]
    fn what_is_dropped_leaves_what_was_there() {
        let folder = Folder::new("file-dropped");
        fs::write(folder.path("x"), "old").expect("room");
        let mut file = NewFile::create(&folder.path("x"), 0o644).expect("a place");
        file.write(b"new").expect("room");
        drop(file);
        assert_eq!(folder.names(), ["x"]);
        assert_eq!(fs::read(folder.path("x")).expect("there"), b"old");
    }

    #[test]
    fn a_link_is_followed() {
        let folder = Folder::new("file-link");
        fs::write(folder.path("x"), "old").expect("room");
        symlink("x", folder.path("link")).expect("a link");
        let mut file = NewFile::create(&folder.path("link"), 0o600).expect("a place");
        file.write(b"new").expect("room");
        file.publish().expect("renamed");
        assert_eq!(folder.names(), ["link", "x"]);
        assert_eq!(fs::read(folder.path("x")).expect("there"), b"new");
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
        assert_eq!(
            errno(&folder.path(&"n".repeat(256))),
            None,
            "its folder is good"
        );
        assert_eq!(folder.names(), ["x"]);
    }
}
