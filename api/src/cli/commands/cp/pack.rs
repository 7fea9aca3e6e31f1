//! A directory of this host as a tar stream.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::meter::Meter;

/// Writes what is in a directory, its entries relative to it. It blocks.
pub(super) fn pack(directory: &Path, to: impl Write, meter: &Meter) -> Result<(), Failed> {
    let mut builder = Builder::new(to);
    // Depth first, with the names in order, so that the same directory is always the same stream.
    let mut left = vec![PathBuf::new()];
    while let Some(inside) = left.pop() {
        let path = directory.join(&inside);
        let failed = |source| Failed {
            path: path.clone(),
            source,
        };
        let facts = fs::symlink_metadata(&path).map_err(failed)?;
        let name = Path::new(".").join(&inside);
        if facts.is_dir() {
            append(
                &mut builder,
                &facts,
                EntryType::Directory,
                &name,
                io::empty(),
            )
            .map_err(failed)?;
            let mut names = fs::read_dir(&path)
                .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
                .map_err(failed)?;
            let names: &mut Vec<_> = &mut names;
            names.sort_unstable_by(|a, b| b.cmp(a));
            left.extend(names.iter().map(|name| inside.join(name)));
        } else if facts.is_file() {
            let file = File::open(&path).map_err(failed)?;
            append(&mut builder, &facts, EntryType::Regular, &name, file).map_err(failed)?;
        } else if facts.is_symlink() {
            let target = fs::read_link(&path).map_err(failed)?;
            let mut header = header(&facts, EntryType::Symlink);
            header.set_size(0);
            builder
                .append_link(&mut header, &name, target)
                .map_err(failed)?;
        } else {
            meter.note(&format!(
                "{} is left out: it is no file, directory or symbolic link",
                path.display()
            ));
        }
    }
    let finished = builder.into_inner().and_then(|mut to| to.flush());
    finished.map_err(|source| Failed {
        path: directory.to_owned(),
        source,
    })
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
