//! Files that the host writes or reads. Neither is ever in memory as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use super::frame::{PAYLOAD_MAX_BYTES, kind};
use super::input::Grant;
use super::out::Out;
use super::{CREDIT_BYTES, STDERR, STDOUT, Step, Trouble};
use crate::file::NewFile;
use crate::json::Object;

/// The bits of a file's mode that are not its type.
const MODE_BITS: u32 = 0o7777;

pub(super) struct Write {
    path: String,
    file: NewFile,
    pub(super) grant: Grant,
}

impl Write {
    pub(super) fn begin(path: String, mode: u32) -> Result<Self, Trouble> {
        match NewFile::create(&path, mode) {
            Ok(file) => Ok(Self {
                path,
                file,
                grant: Grant::new(),
            }),
            Err(error) => Err(Trouble::of_file(&path, &error)),
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.grant.spend(bytes.len())?;
        self.grant.consumed(bytes.len());
        self.file
            .write(bytes)
            .map_err(|error| Trouble::of_file(&self.path, &error))
    }

    /// It was the last byte: the file is put into its place.
    pub(super) fn end(self) -> Result<String, Trouble> {
        match self.file.publish() {
            Ok(size) => Ok(size_of(size)),
            Err(error) => Err(Trouble::of_file(&self.path, &error)),
        }
    }
}

pub(super) struct Read {
    path: String,
    file: File,
    /// What the file said of itself, until the host was told.
    facts: Option<String>,
    /// `None`: up to the end, wherever that is.
    left_bytes: Option<u64>,
    sent_bytes: u64,
    credit_bytes: u64,
}

impl Read {
    pub(super) fn begin(path: String) -> Result<Self, Trouble> {
        open(&path)
            .map_err(|error| Trouble::of_file(&path, &error))
            .map(|(file, size, mode)| {
                let facts = Object::new()
                    .number("size", i64::try_from(size).unwrap_or(i64::MAX))
                    .number("mode", mode)
                    .end();
                Self {
                    path,
                    file,
                    facts: Some(facts),
                    // The kernel's own files say that they are empty, and are not.
                    left_bytes: Some(size).filter(|size| *size > 0),
                    sent_bytes: 0,
                    credit_bytes: CREDIT_BYTES.into(),
                }
            })
    }

    pub(super) fn credit(&mut self, channel: u8, bytes: u32) {
        if channel == STDOUT {
            self.credit_bytes = self.credit_bytes.saturating_add(bytes.into());
        }
    }

    pub(super) fn wants_turn(&self) -> bool {
        self.facts.is_some() || self.credit_bytes > 0 || self.left_bytes == Some(0)
    }

    /// Sends one frame's worth.
    pub(super) fn attend(&mut self, id: u16, out: &mut Out) -> Step {
        if let Some(facts) = self.facts.take() {
            out.frame(id, kind::DATA, STDERR, facts.as_bytes());
        }
        if self.left_bytes == Some(0) {
            return self.end(id, out);
        }
        if self.credit_bytes == 0 || !out.has_room() {
            return Step::GoOn;
        }
        let most = self.left_bytes.unwrap_or(u64::MAX).min(self.credit_bytes);
        let most = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .min(PAYLOAD_MAX_BYTES);
        match out.data(id, STDOUT, most, |room| self.file.read(room)) {
            Ok(0) => self.end(id, out),
            Ok(size) => {
                let size = size as u64;
                self.sent_bytes += size;
                self.credit_bytes -= size;
                self.left_bytes = self.left_bytes.map(|left| left - size);
                Step::GoOn
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Step::GoOn,
            Err(error) => Step::Done(Trouble::of_file(&self.path, &error).result()),
        }
    }

    fn end(&self, id: u16, out: &mut Out) -> Step {
        out.frame(id, kind::END, STDOUT, b"");
        Step::Done(size_of(self.sent_bytes))
    }
}

/// A regular file, its size and its mode.
fn open(path: &str) -> io::Result<(File, u64, u32)> {
    let errno = io::Error::from_raw_os_error;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(errno(libc::EINVAL));
    }
    let file = OpenOptions::new()
        .read(true)
        // A FIFO or a terminal is not waited for; it is refused below.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(errno(libc::EISDIR));
    }
    if !about.is_file() {
        return Err(errno(libc::EINVAL));
    }
    Ok((file, about.len(), about.mode() & MODE_BITS))
}

fn size_of(bytes: u64) -> String {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    Object::new().number("size", bytes).end()
}
