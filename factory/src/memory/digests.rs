//! Digests of files that are asked for again and again.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::file_digest;
use crate::sync::lock;

/// Files that are remembered at most: a host has a handful of templates, with a few generations each.
const REMEMBERED: usize = 512;

/// What changes when a file is written, replaced or renamed. `ctime` is set by the kernel alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Remembers digests as long as their files are the same by device, inode, length and times.
///
/// Writing through a shared mapping of a tmpfs changes none of these: who must know of that reads every byte
/// ([`Digests::read`]).
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<HashMap<PathBuf, (FileStamp, String)>>);

impl Digests {
    /// The digest of a file. It is read only when it is not known, or the file has changed since.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn of(&self, path: &Path) -> io::Result<String> {
        let stamp = FileStamp::of(path)?;
        let known = self.lock().get(path).cloned();
        match known {
            Some((then, digest)) if then == stamp => Ok(digest),
            _ => self.read(path),
        }
    }

    /// The digest of a file, from every byte of it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self, path: &Path) -> io::Result<String> {
        // Before the bytes: a write in between makes the stamp an old one, and the file is read again.
        let stamp = FileStamp::of(path)?;
        let digest = file_digest(path)?;
        let mut known = self.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(path.to_owned(), (stamp, digest.clone()));
        Ok(digest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, (FileStamp, String)>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::bytes_digest;

    #[test]
    fn a_file_is_read_again_when_it_was_written_or_replaced() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        let digests = Digests::default();
        fs::write(&path, "one")?;
        assert_eq!(digests.of(&path)?, bytes_digest(b"one"));
        // What is remembered is what is answered: only then is it known that nothing was read.
        if let Some((_, digest)) = digests.lock().get_mut(&path) {
            *digest = "remembered".to_owned();
        }
        assert_eq!(digests.of(&path)?, "remembered");
        assert_eq!(digests.read(&path)?, bytes_digest(b"one"));
        fs::write(folder.path().join("g"), "two")?;
        fs::rename(folder.path().join("g"), &path)?;
        assert_eq!(digests.of(&path)?, bytes_digest(b"two"));
        fs::write(&path, "three")?;
        assert_eq!(digests.of(&path)?, bytes_digest(b"three"));
        fs::remove_file(&path)?;
        assert!(digests.of(&path).is_err());
        Ok(())
    }
}
