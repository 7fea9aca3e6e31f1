//! Digests of files that are asked for again and again.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::file_digest;
use crate::aside::blocks;
use crate::shortage::is_being_written;
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

/// Reads a file for its digest: another function in tests.
type ReadFile = fn(&Path) -> io::Result<String>;

/// Remembers digests as long as their files are the same by device, inode, length and times.
///
/// - Callers that miss the same file at the same time read it once: the first reads, the others wait for it.
/// - Beyond [`REMEMBERED`] files the one that was asked for least recently is forgotten, and no other. Files that are gone
///   are forgotten whenever another is added.
///
/// Writing through a shared mapping of a tmpfs changes none of these: callers that must know of that read every byte
/// ([`Digests::read`]).
#[derive(Debug)]
pub(crate) struct Digests {
    files: Mutex<Files>,
    read_file: ReadFile,
}

#[derive(Debug, Default)]
struct Files {
    by_path: HashMap<PathBuf, Entry>,
    /// Counts the questions: the clock of `Entry::asked`.
    asked: u64,
}

#[derive(Debug)]
struct Entry {
    file: Arc<FileDigest>,
    asked: u64,
}

/// What is remembered of one file.
#[derive(Debug, Default)]
struct FileDigest {
    known: Mutex<Option<(FileStamp, String)>>,
    /// Held while the file is read.
    reading: Mutex<()>,
}

impl FileDigest {
    fn if_still(&self, stamp: FileStamp) -> Option<String> {
        let known = lock(&self.known);
        let (then, digest) = known.as_ref()?;
        (*then == stamp).then(|| digest.clone())
    }
}

impl Default for Digests {
    fn default() -> Self {
        Self::reading_by(file_digest)
    }
}

impl Digests {
    /// One that reads files in another way.
    pub(crate) fn reading_by(read_file: ReadFile) -> Self {
        let files = Mutex::default();
        Self { files, read_file }
    }

    /// The digest of a file. It is read only when it is not known, or the file has changed since. It blocks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn of(&self, path: &Path) -> io::Result<String> {
        blocks("looking at a file for its digest");
        let stamp = FileStamp::of(path)?;
        let file = self.entry(path);
        if let Some(digest) = file.if_still(stamp) {
            return Ok(digest);
        }
        let _turn = lock(&file.reading);
        // Another caller may have read it meanwhile.
        if let Some(digest) = file.if_still(stamp) {
            return Ok(digest);
        }
        self.read_into(&file, path)
    }

    /// The digest of a file, from every byte of it. It blocks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(&self, path: &Path) -> io::Result<String> {
        let file = self.entry(path);
        let _turn = lock(&file.reading);
        self.read_into(&file, path)
    }

    fn read_into(&self, file: &FileDigest, path: &Path) -> io::Result<String> {
        // A file that is half copied is no other file: what is read while somebody writes says nothing.
        let stamp = FileStamp::of(path)?;
        let digest = (self.read_file)(path)?;
        if FileStamp::of(path)? != stamp {
            return Err(is_being_written());
        }
        *lock(&file.known) = Some((stamp, digest.clone()));
        Ok(digest)
    }

    fn entry(&self, path: &Path) -> Arc<FileDigest> {
        let mut files = lock(&self.files);
        files.asked += 1;
        let asked = files.asked;
        if let Some(entry) = files.by_path.get_mut(path) {
            entry.asked = asked;
            return Arc::clone(&entry.file);
        }
        files.make_room();
        let file = Arc::<FileDigest>::default();
        let entry = Entry {
            file: Arc::clone(&file),
            asked,
        };
        files.by_path.insert(path.to_owned(), entry);
        file
    }
}

impl Files {
    /// Forgets the files that are gone, and the one that was asked for least recently where there are too many.
    fn make_room(&mut self) {
        self.by_path.retain(|path, _| path.exists());
        if self.by_path.len() < REMEMBERED {
            return;
        }
        let oldest = self.by_path.iter().min_by_key(|(_, entry)| entry.asked);
        if let Some(path) = oldest.map(|(path, _)| path.clone()) {
            self.by_path.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::bytes_digest;
    use crate::waiting::wait_until;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_file_is_read_again_when_it_was_written_or_replaced() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        let digests = Digests::default();
        fs::write(&path, "one")?;
        assert_eq!(digests.of(&path)?, bytes_digest(b"one"));
        // What is remembered is what is answered: only then is it known that nothing was read.
        if let Some((_, digest)) = &mut *lock(&digests.entry(&path).known) {
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

    #[test]
    fn what_is_read_while_it_is_written_is_no_digest() -> io::Result<()> {
        fn written_meanwhile(path: &Path) -> io::Result<String> {
            let digest = file_digest(path)?;
            fs::write(path, "the whole of it")?;
            Ok(digest)
        }
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("f");
        fs::write(&path, "half of")?;
        let digests = Digests::reading_by(written_meanwhile);
        let refused = digests.of(&path).map_err(|error| error.to_string());
        assert_eq!(refused, Err("it is being written to".to_owned()));
        Ok(())
    }

    #[test]
    fn one_file_too_many_costs_the_least_recent_one_only() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let digests = Digests::default();
        let paths: Vec<_> = (0..=REMEMBERED)
            .map(|at| folder.path().join(at.to_string()))
            .collect();
        for path in &paths {
            fs::write(path, "x")?;
        }
        let (last, others) = paths.split_last().ok_or(io::ErrorKind::NotFound)?;
        for path in others {
            digests.of(path)?;
        }
        // The oldest is asked for again: the second one is now the least recent.
        digests.of(&paths[0])?;
        digests.of(last)?;
        let files = lock(&digests.files);
        let forgotten = paths
            .iter()
            .filter(|path| !files.by_path.contains_key(*path));
        assert_eq!(forgotten.collect::<Vec<_>>(), [&paths[1]]);
        Ok(())
    }

    #[test]
    fn files_that_are_gone_are_forgotten() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let digests = Digests::default();
        let generation = folder.path().join("generation");
        fs::create_dir(&generation)?;
        for name in ["memory", "state"] {
            fs::write(generation.join(name), name)?;
            digests.of(&generation.join(name))?;
        }
        fs::remove_dir_all(&generation)?;
        let other = folder.path().join("other");
        fs::write(&other, "x")?;
        digests.of(&other)?;
        let files = lock(&digests.files);
        assert_eq!(files.by_path.keys().collect::<Vec<_>>(), [&other]);
        Ok(())
    }

    static READS: AtomicUsize = AtomicUsize::new(0);

    fn counted(path: &Path) -> io::Result<String> {
        READS.fetch_add(1, Ordering::SeqCst);
        file_digest(path)
    }

    #[test]
    fn callers_that_miss_a_file_together_read_it_once() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("memory");
        fs::write(&path, "x")?;
        let digests = Digests::reading_by(counted);
        let file = digests.entry(&path);
        let turn = lock(&file.reading);
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| digests.of(&path))).collect();
            // All of them have missed: each holds the entry while it waits for its turn.
            wait_until("all wait for their turn", || {
                Arc::strong_count(&file) >= 2 + callers.len()
            });
            drop(turn);
            for caller in callers {
                let digest = caller.join().map_err(|_| io::ErrorKind::Other)??;
                assert_eq!(digest, bytes_digest(b"x"));
            }
            Ok::<_, io::Error>(())
        })?;
        assert_eq!(READS.load(Ordering::SeqCst), 1);
        Ok(())
    }
}
