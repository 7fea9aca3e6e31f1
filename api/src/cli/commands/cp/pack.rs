//! A directory of this host as a tar stream.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::beneath::Directory;
use super::meter::Meter;

/// Directories in one another, each of which is held open.
const DEPTH_MAX: usize = 500;

/// Writes what is in a directory, its entries relative to it. Only the directory itself is reached through links; what
/// is below is held while it is looked at and read, so that nothing else can take its place. It blocks.
pub(super) fn pack(directory: &Path, to: impl Write, meter: &Meter) -> Result<(), Failed> {
    let failed_at = |inside: &Path| {
        let path = directory.join(inside);
        move |source| Failed { path, source }
    };
    let mut builder = Builder::new(to);
    let root = Directory::open(directory).map_err(failed_at(Path::new("")))?;
    let facts = root.facts().map_err(failed_at(Path::new("")))?;
    append(
        &mut builder,
        &facts,
        EntryType::Directory,
        Path::new("./"),
        io::empty(),
    )
    .map_err(failed_at(Path::new("")))?;
    // Depth first, with the names in order, so that the same directory is always the same stream.
    let mut open = vec![Level::of(root).map_err(failed_at(Path::new("")))?];
    let mut inside = PathBuf::new();
    while let Some(level) = open.last_mut() {
        let Some(name) = level.names.pop() else {
            open.pop();
            inside.pop();
            continue;
        };
        inside.push(&name);
        match entry(&mut builder, &level.directory, &name, &inside, meter)
            .map_err(failed_at(&inside))?
        {
            Some(level) if open.len() < DEPTH_MAX => open.push(level),
            Some(_) => {
                let why = format!("it lies deeper than {DEPTH_MAX} directories");
                return Err(failed_at(&inside)(io::Error::other(why)));
            }
            None => {
                inside.pop();
            }
        }
    }
    let finished = builder.into_inner().and_then(|mut to| to.flush());
    finished.map_err(failed_at(Path::new("")))
}

/// A directory whose entries are being written; those that are left, the next one last.
struct Level {
    directory: Directory,
    names: Vec<OsString>,
}

impl Level {
    fn of(directory: Directory) -> io::Result<Self> {
        let mut names = directory.names()?;
        names.reverse();
        Ok(Self { directory, names })
    }
}

/// Writes one entry. Returns the directory that it is, if it is one.
fn entry(
    builder: &mut Builder<impl Write>,
    directory: &Directory,
    name: &OsStr,
    inside: &Path,
    meter: &Meter,
) -> io::Result<Option<Level>> {
    let found = directory.look(name)?;
    let named = Path::new(".").join(inside);
    if found.facts.is_dir() {
        append(
            builder,
            &found.facts,
            EntryType::Directory,
            &named,
            io::empty(),
        )?;
        return Ok(Some(Level::of(found.into_directory())?));
    } else if found.facts.is_file() {
        append(
            builder,
            &found.facts,
            EntryType::Regular,
            &named,
            found.open()?,
        )?;
    } else if found.facts.is_symlink() {
        let mut header = header(&found.facts, EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, &named, found.target()?)?;
    } else {
        meter.note(&format!(
            "{} is left out: it is no file, directory or symbolic link",
            inside.display()
        ));
    }
    Ok(None)
}

/// What could not be packed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

fn append(
    builder: &mut Builder<impl Write>,
    facts: &Metadata,
    kind: EntryType,
    name: &Path,
    content: impl Read,
) -> io::Result<()> {
    let size = if kind.is_file() { facts.len() } else { 0 };
    let mut header = header(facts, kind);
    header.set_size(size);
    // Whatever is appended to the file meanwhile belongs to the next copy.
    let mut content = Counted {
        content: content.take(size),
        bytes: 0,
    };
    builder.append_data(&mut header, name, &mut content)?;
    if content.bytes == size {
        Ok(())
    } else {
        Err(io::Error::other("it became shorter while it was read"))
    }
}

/// Modes and times are kept. In the guest it belongs to root.
fn header(facts: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(facts);
    header.set_entry_type(kind);
    header.set_uid(0);
    header.set_gid(0);
    header
}

struct Counted<R> {
    content: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.content.read(buffer)?;
        self.bytes += u64::try_from(got).unwrap_or(u64::MAX);
        Ok(got)
    }
}

/// Gives what is written to somebody who awaits it.
pub(super) struct Sender(pub(super) mpsc::Sender<Bytes>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
