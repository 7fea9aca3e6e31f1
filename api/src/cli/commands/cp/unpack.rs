//! A tar stream of a sandbox, unpacked on this host.
//!
//! Nobody trusts a guest: nothing is written outside the directory, whatever names and links the stream has and whatever
//! links an earlier copy has left there; only files, directories and links are made; no file gets set-user-id bits, and
//! modes are what the umask leaves of them; what describes an entry takes no more than [`HEADERS_BYTES_MAX`].

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc;

use super::beneath::{Directory, names_of};

/// Everything in front of an entry's content: its header, long names, PAX records, the map of a sparse file. `tar` holds
/// that in memory.
const HEADERS_BYTES_MAX: u64 = 1 << 20;
/// The names of directories that wait for their mode.
const DIRECTORIES_BYTES_MAX: usize = 16 << 20;
/// What files with holes may be long in all. A hole costs no bytes of the stream, and time here: a guest with a stream of some
/// hundred bytes is not to keep a processor busy for longer than a minute.
const SPARSE_BYTES_MAX: u64 = 256 << 30;
/// What is copied of a file at once.
const PIECE_BYTES: usize = 64 << 10;

/// Unpacks into a directory, which is made where it is missing. `note` is told what is left out. It blocks.
pub(super) fn unpack(stream: impl Read, to: &Target, note: impl Fn(&str)) -> io::Result<()> {
    let (root, is_new) = to.open()?;
    let limit = Rc::new(Cell::new(None));
    let stream = Limited {
        stream,
        left: Rc::clone(&limit),
    };
    let mut unpacking = Unpacking {
        root,
        is_new,
        later: Vec::new(),
        later_bytes: 0,
        sparse_bytes: 0,
        piece: vec![0; PIECE_BYTES],
    };
    let mut archive = Archive::new(stream);
    let mut entries = archive.entries()?;
    loop {
        limit.set(Some(HEADERS_BYTES_MAX));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry?;
        limit.set(None);
        unpacking.count_holes(&entry)?;
        unpacking.entry(&mut entry, &note)?;
        // What of it was not wanted is not part of the next one's headers.
        io::copy(&mut entry, &mut io::sink())?;
    }
    unpacking.finish()
}

/// Where a directory of a sandbox goes.
pub(super) enum Target {
    /// A path that the user typed: followed, and made with what is missing above it.
    Typed(PathBuf),
    /// A name in a directory that the user typed: a link there is not followed.
    Below(Directory, OsString),
}

impl Target {
    fn open(&self) -> io::Result<(Directory, bool)> {
        match self {
            Self::Below(directory, name) => directory.made_below(name),
            Self::Typed(path) => {
                let is_new = !path.exists();
                fs::create_dir_all(path)?;
                Ok((Directory::open(path)?, is_new))
            }
        }
    }
}

struct Unpacking {
    root: Directory,
    /// Whether the directory itself was made for this copy.
    is_new: bool,
    /// Directories that get their mode when everything is in them: one that may not be written to, too.
    later: Vec<(Vec<OsString>, u32)>,
    later_bytes: usize,
    sparse_bytes: u64,
    piece: Vec<u8>,
}

impl Unpacking {
    fn entry(&mut self, entry: &mut Entry<impl Read>, note: &impl Fn(&str)) -> io::Result<()> {
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        let mode = entry.header().mode()? & 0o777;
        if !is_wanted(kind) {
            note(&format!(
                "{path:?} is left out: it is no file, directory or link"
            ));
            return Ok(());
        }
        let Some(mut names) = names_of(&path)? else {
            note(&format!(
                "{path:?} is left out: it leads out of the directory"
            ));
            return Ok(());
        };
        let Some(name) = names.pop() else {
            // The directory itself.
            if kind.is_dir() && self.is_new {
                self.later(names, mode)?;
            }
            return Ok(());
        };
        let parent = self.root.made_walk(&names)?;
        match kind {
            EntryType::Directory => {
                // The mode of one that was there before is its owner's affair.
                if parent.made_below(&name)?.1 {
                    names.push(name);
                    self.later(names, mode)?;
                }
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| no_target(&path))?;
                parent.link(&name, target.as_os_str())?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| no_target(&path))?;
                let mut of = names_of(&target)?.ok_or_else(|| no_target(&path))?;
                let of_name = of.pop().ok_or_else(|| no_target(&path))?;
                parent.hard_link(&name, (&self.root.walk(&of)?, &of_name))?;
            }
            _ => {
                let mut file = parent.create(&name, mode)?;
                self.content(entry, &mut file)?;
                let seconds = Duration::from_secs(entry.header().mtime().unwrap_or(0));
                if let Some(changed) = SystemTime::UNIX_EPOCH.checked_add(seconds) {
                    file.set_modified(changed)?;
                }
            }
        }
        Ok(())
    }

    /// Refuses more holes than can be passed over in a short time.
    fn count_holes(&mut self, entry: &Entry<impl Read>) -> io::Result<()> {
        if !entry.header().entry_type().is_gnu_sparse() {
            return Ok(());
        }
        self.sparse_bytes = self.sparse_bytes.saturating_add(entry.size());
        if self.sparse_bytes > SPARSE_BYTES_MAX {
            let why = format!(
                "files with holes are longer than {} GiB in all, which is the limit; hint: copy them out as a tar stream (to -)",
                SPARSE_BYTES_MAX >> 30
            );
            return Err(io::Error::other(why));
        }
        Ok(())
    }

    /// The holes of a sparse file stay holes: a small stream fills no disk.
    fn content(&mut self, entry: &mut Entry<impl Read>, file: &mut File) -> io::Result<()> {
        let is_sparse = entry.header().entry_type().is_gnu_sparse();
        let (mut size, mut is_behind_hole) = (0, false);
        loop {
            let length = entry.read(&mut self.piece)?;
            let piece = &self.piece[..length];
            if length == 0 {
                break;
            }
            if is_sparse && piece.iter().all(|byte| *byte == 0) {
                is_behind_hole = true;
            } else {
                if std::mem::take(&mut is_behind_hole) {
                    file.seek(SeekFrom::Start(size))?;
                }
                file.write_all(piece)?;
            }
            size += u64::try_from(length).unwrap_or(0);
        }
        if is_sparse {
            file.set_len(size)
        } else {
            Ok(())
        }
    }

    fn later(&mut self, names: Vec<OsString>, mode: u32) -> io::Result<()> {
        self.later_bytes += size_of::<(Vec<OsString>, u32)>();
        self.later_bytes += names
            .iter()
            .map(|name| size_of::<OsString>() + name.len())
            .sum::<usize>();
        if self.later_bytes > DIRECTORIES_BYTES_MAX {
            let why = format!(
                "{} directories have names of more than {} MiB in all; hint: copy a part of them at a time",
                self.later.len(),
                DIRECTORIES_BYTES_MAX >> 20
            );
            return Err(io::Error::other(why));
        }
        self.later.push((names, mode));
        Ok(())
    }

    /// Gives the directories their modes, the deeper ones first.
    fn finish(mut self) -> io::Result<()> {
        let umask = umask()?;
        self.later.sort_by(|a, b| b.0.cmp(&a.0));
        for (names, mode) in &self.later {
            self.root.walk(names)?.set_mode(mode & !umask)?;
        }
        Ok(())
    }
}

fn is_wanted(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Directory
            | EntryType::Regular
            | EntryType::Continuous
            | EntryType::GNUSparse
            | EntryType::Symlink
            | EntryType::Link
    )
}

fn no_target(path: &Path) -> io::Error {
    io::Error::other(format!("{path:?} is a link to no place in the directory"))
}

/// The user's umask, without a moment in which it is another.
fn umask() -> io::Result<u32> {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    let umask = status.map_err(io::Error::other)?.umask;
    umask.ok_or_else(|| io::Error::other("/proc/self/status has no Umask"))
}

/// A stream that can be kept from being read too far.
struct Limited<R> {
    stream: R,
    left: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.left.get() else {
            return self.stream.read(buffer);
        };
        if left == 0 {
            let why = format!(
                "what describes an entry of the archive is longer than {} KiB",
                HEADERS_BYTES_MAX >> 10
            );
            return Err(io::Error::other(why));
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let length = self.stream.read(&mut buffer[..most])?;
        self.left
            .set(Some(left - u64::try_from(length).unwrap_or(left)));
        Ok(length)
    }
}

/// Reads what somebody else receives.
pub(super) struct Receiver {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Receiver {
    pub(super) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
        }
    }
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
