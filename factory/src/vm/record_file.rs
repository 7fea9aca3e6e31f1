//! How a machine's record is kept on disk.
//!
//! ```text
//!  vm.json:   {"digest":"...","sequence":7,"record":{...}}      \n    slot 0
//!             {"digest":"...","sequence":8,"record":{...}}      \n    slot 1: the newer one counts
//! ```
//! A record is written at every checkout, so it is written quickly: in place, with one call, into the slot that does not
//! hold the record that counts. A rename would take a disk's file system ten times as long.
//!
//! What always holds:
//! - A reader gets a record that was written whole, or none: each slot has a digest of all that is in it. Whatever
//!   happens in the middle of a write, the other slot still has the record before it.
//! - The newest whole record counts. A service that died in a write had not answered yet to whoever it wrote it for.
//! - A record that is too long for its slot gets a file with longer ones, by rename.
//! - A record whose name leads nowhere, or to another file, is lost: nobody would find what is written to it. That of a
//!   sandbox is written again by its name, unless another service has the run directory by now.
//!
//! Every slot is one line of JSON: `jq . vm.json` shows both.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dir::VmDir;
use super::record::{RecordedState, VmRecord};
use crate::aside::blocks;
use crate::clock::Moment;
use crate::host::{FileId, Place, PlaceError};
use crate::rights::create_own;

/// The file's name.
const FILE: &str = "vm.json";
/// What a slot's length is a multiple of.
const PAGE_BYTES: usize = 4096;
/// Longest file that is read: a lease has bounded metadata, and nothing else grows.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// What a slot begins with, the digest, and what comes between it and the rest.
const BEFORE_DIGEST: &[u8] = b"{\"digest\":\"";
const DIGEST_LETTERS: usize = 32;
const AFTER_DIGEST: &[u8] = b"\",";

/// What a slot holds beside its digest.
#[derive(Serialize)]
struct Written<'a> {
    sequence: u64,
    record: &'a VmRecord,
}

#[derive(Deserialize)]
struct Read {
    sequence: u64,
    record: serde_json::Value,
}

/// A machine's record, in memory and on disk.
#[derive(Debug)]
pub(crate) struct RecordFile {
    record: VmRecord,
    path: PathBuf,
    file: File,
    slot_bytes: usize,
    sequence: u64,
    /// Where the machines of this service have theirs. A record without one is made again whoever has it.
    run_dir: Option<Arc<Place>>,
    /// Its machine has no owner any more: the directory goes, or is the next service's.
    is_closed: bool,
}

impl RecordFile {
    /// Writes the first record of a machine.
    pub(crate) fn create(dir: &Path, record: VmRecord) -> io::Result<Self> {
        blocks("writing the first record of a machine");
        let path = dir.join(FILE);
        let line = line_of(0, &record)?;
        let slot_bytes = line.len().next_multiple_of(PAGE_BYTES);
        let file = replace(&path, &line, slot_bytes, 0)?;
        Ok(Self {
            record,
            path,
            file,
            slot_bytes,
            sequence: 0,
            run_dir: None,
            is_closed: false,
        })
    }

    /// Takes up the record that another service has written.
    ///
    /// # Errors
    /// When there is none that is whole and of this format.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file = File::options().read(true).write(true).open(&path)?;
        let bytes = read_all(&file)?;
        let (sequence, record) = newest(&bytes)?;
        let slot_bytes = bytes.len() / 2;
        Ok(Self {
            record,
            path,
            file,
            slot_bytes,
            sequence,
            run_dir: None,
            is_closed: false,
        })
    }

    /// Reads the record of a machine.
    ///
    /// # Errors
    /// When there is none that is whole and of this format.
    pub(crate) fn read(dir: &Path) -> io::Result<VmRecord> {
        newest(&read_all(&File::open(dir.join(FILE))?)?).map(|(_, record)| record)
    }

    /// The run directory that it is in: only as long as that is this service's it is made again.
    pub(super) fn within(self, run_dir: Arc<Place>) -> Self {
        let run_dir = Some(run_dir);
        Self { run_dir, ..self }
    }

    pub(crate) fn record(&self) -> &VmRecord {
        &self.record
    }

    /// Its machine's owner is about to let go of the directory: from now on it is not made again.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether somebody has removed it, moved it or the way to it, or unmounted it.
    pub(super) fn is_lost(&self) -> bool {
        let Ok(ours) = FileId::of_file(&self.file) else {
            return false;
        };
        match FileId::of_path(&self.path) {
            Ok(there) => there != ours,
            // Anything else says nothing about the file.
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        }
    }

    /// Changes the record. That of a sandbox is written again, into a new directory, where somebody has removed it.
    ///
    /// # Errors
    /// When it cannot be written: then the one before it is still there, and is what the next change begins with. It is
    /// [`io::ErrorKind::NotFound`] where it was removed, and the machine is no sandbox.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut VmRecord)) -> io::Result<()> {
        let mut record = self.record.clone();
        record.told_at(Moment::now());
        change(&mut record);
        let sequence = self.sequence + 1;
        let line = line_of(sequence, &record)?;
        if self.is_lost() {
            self.make_directory_again()?;
            self.slot_bytes = line.len().next_multiple_of(PAGE_BYTES);
            self.file = replace(&self.path, &line, self.slot_bytes, sequence)?;
        } else if line.len() <= self.slot_bytes {
            let slot = padded(&line, self.slot_bytes);
            self.file
                .write_all_at(&slot, place(sequence, self.slot_bytes))?;
        } else {
            self.slot_bytes = line.len().next_multiple_of(PAGE_BYTES);
            self.file = replace(&self.path, &line, self.slot_bytes, sequence)?;
        }
        (self.record, self.sequence) = (record, sequence);
        Ok(())
    }

    fn make_directory_again(&self) -> io::Result<()> {
        let is_sandbox = self.record.state == RecordedState::Leased;
        let dir = self.path.parent().filter(|_| is_sandbox && !self.is_closed);
        let Some(dir) = dir else {
            let why = "the directory of the virtual machine was removed";
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        };
        if let Some(run_dir) = &self.run_dir {
            run_dir.renew().map_err(PlaceError::into_io)?;
        }
        VmDir::make_again(dir)
    }
}

/// Where the record with this number goes: the two slots take turns.
fn place(sequence: u64, slot_bytes: usize) -> u64 {
    (sequence % 2) * slot_bytes as u64
}

/// A record as the text of a slot, without what fills the slot up.
fn line_of(sequence: u64, record: &VmRecord) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(&Written { sequence, record })?;
    // The digest takes the place of the opening brace.
    let rest = &body[1..];
    let mut line = BEFORE_DIGEST.to_vec();
    line.extend_from_slice(digest(rest).as_bytes());
    line.extend_from_slice(AFTER_DIGEST);
    line.extend_from_slice(rest);
    line.push(b'\n');
    // What could not be read again is not written: its lease would be known to nobody.
    let file_bytes = 2 * line.len().next_multiple_of(PAGE_BYTES) as u64;
    if file_bytes > MAX_FILE_BYTES {
        let why =
            format!("{file_bytes} bytes would be too long: {MAX_FILE_BYTES} are read at most");
        return Err(invalid(why));
    }
    Ok(line)
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..DIGEST_LETTERS].to_owned()
}

/// The text with spaces before its end of line, up to a whole slot.
fn padded(line: &[u8], slot_bytes: usize) -> Vec<u8> {
    let mut slot = line[..line.len() - 1].to_vec();
    slot.resize(slot_bytes - 1, b' ');
    slot.push(b'\n');
    slot
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > MAX_FILE_BYTES {
        return Err(invalid(format!("{length} bytes are too long")));
    }
    // Bounded just above, so that it fits.
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The newer of the two records that are whole.
fn newest(bytes: &[u8]) -> io::Result<(u64, VmRecord)> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let whole = [slot(first), slot(second)];
    let newest = whole.into_iter().flatten().max_by_key(|read| read.sequence);
    let Some(Read { sequence, record }) = newest else {
        return Err(invalid("it holds no whole record".to_owned()));
    };
    let format = record.get("format").and_then(serde_json::Value::as_u64);
    if format != Some(VmRecord::FORMAT.into()) {
        let found = record.get("format").unwrap_or(&serde_json::Value::Null);
        let reads = VmRecord::FORMAT;
        return Err(invalid(format!(
            "format {found}, and this program reads {reads}"
        )));
    }
    let record = serde_json::from_value(record).map_err(|e| invalid(e.to_string()))?;
    Ok((sequence, record))
}

/// What is in a slot, when it is there byte for byte as it was written.
fn slot(bytes: &[u8]) -> Option<Read> {
    let text = bytes.trim_ascii_end().strip_prefix(BEFORE_DIGEST)?;
    let (wanted, rest) = text.split_at_checked(DIGEST_LETTERS)?;
    let rest = rest.strip_prefix(AFTER_DIGEST)?;
    if digest(rest).as_bytes() != wanted {
        return None;
    }
    let mut body = b"{".to_vec();
    body.extend_from_slice(rest);
    serde_json::from_slice(&body).ok()
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: {why}"))
}

/// Puts a new file, with this record alone, in the place of an old one.
fn replace(path: &Path, line: &[u8], slot_bytes: usize, sequence: u64) -> io::Result<File> {
    let fresh = path.with_extension("json.new");
    let file = create_own(&fresh)?;
    // An empty slot is spaces, so that the file is text.
    let empty = padded(b"\n", slot_bytes);
    file.write_all_at(&empty, place(sequence + 1, slot_bytes))?;
    file.write_all_at(&padded(line, slot_bytes), place(sequence, slot_bytes))?;
    fs::rename(fresh, path)?;
    Ok(file)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
