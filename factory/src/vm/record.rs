//! `vm.json`: what there is to know about a machine when the service that made it is gone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::device::Attached;
use crate::guest::Identity;
use crate::process::ProcessStamp;
use crate::{Accel, GenerationId, VmId};

/// The file's name.
const FILE: &str = "vm.json";
/// The format below; a later one that says another number is not read.
const FORMAT: u32 = 1;

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// It becomes a generation.
    Template,
    /// It shows that a generation works.
    Canary,
    /// It is a sandbox, now or later.
    Clone,
    /// It shows that an accelerator works.
    Probe,
}

/// Where a machine stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedState {
    /// It is being made.
    Launching,
    /// It waits to be leased.
    Ready,
    /// Somebody has it.
    Leased,
    /// It is being ended.
    Releasing,
}

/// Who has a machine and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// When it was handed out.
    pub leased_at: Timestamp,
    /// When the right to it ends; none is until it is released.
    pub expires_at: Option<Timestamp>,
    /// `pool` or `clone`: where it came from.
    pub source: String,
    /// Virtual CPUs, those included that were plugged in for it. Records of the version before have none.
    #[serde(default)]
    pub vcpus: u32,
    /// Memory, likewise, MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// What the runtime wrote on it.
    pub metadata: BTreeMap<String, String>,
    /// What the request was named by, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<RequestKey>,
}

/// What a checkout was named by, so that the same one is not done twice: digests alone, since the request may have
/// secrets in it. That of the body is keyed with the name itself, which is kept nowhere, so it can be neither looked up
/// nor guessed from what is here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestKey {
    /// Of the name.
    pub key: String,
    /// Of the request's body.
    pub body: String,
}

/// The content of `vm.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VmRecord {
    pub(crate) format: u32,
    pub(crate) id: VmId,
    pub(crate) role: Role,
    pub(crate) template: String,
    pub(crate) generation: Option<GenerationId>,
    pub(crate) process: ProcessStamp,
    pub(crate) accel: Accel,
    pub(crate) created_at: Timestamp,
    pub(crate) state: RecordedState,
    pub(crate) identity: Option<Identity>,
    pub(crate) lease: Option<LeaseRecord>,
    /// What was plugged into it when it was handed out.
    #[serde(default, skip_serializing_if = "Attached::is_empty")]
    pub(crate) devices: Attached,
}

impl VmRecord {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// Reads the record of a machine.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let record: Self = serde_json::from_slice(&fs::read(dir.join(FILE))?)?;
        if record.format != FORMAT {
            let why = format!(
                "vm.json has format {}, this program reads {FORMAT}",
                record.format
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(record)
    }
}

/// A machine's record, in memory and on disk.
///
/// It is written at every checkout, so it is written quickly: in place, with one call, padded to one page. A service
/// that dies before, in or after that call leaves the old record or the new one, because the kernel copies within one
/// page without a break. What needs more than a page is written beside the old one and renamed into its place, which
/// takes a disk's file system ten times as long.
#[derive(Debug)]
pub(crate) struct RecordFile {
    record: VmRecord,
    path: PathBuf,
    file: File,
}

/// What is written without a break.
const PAGE_BYTES: usize = 4096;

impl RecordFile {
    /// Writes the first record of a machine.
    pub(crate) fn create(dir: &Path, record: VmRecord) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file = replace(&path, &padded(&record)?)?;
        Ok(Self { record, path, file })
    }

    /// Changes the record.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut VmRecord)) -> io::Result<()> {
        change(&mut self.record);
        let bytes = padded(&self.record)?;
        let is_one_page =
            bytes.len() == PAGE_BYTES && self.file.metadata()?.len() == PAGE_BYTES as u64;
        if is_one_page {
            self.file.write_all_at(&bytes, 0)
        } else {
            self.file = replace(&self.path, &bytes)?;
            Ok(())
        }
    }
}

/// A record in JSON, with spaces up to a whole page.
fn padded(record: &VmRecord) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(record)?;
    bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), b' ');
    Ok(bytes)
}

/// Puts a new file in the place of an old one: the service's alone, since it has what runtimes wrote on it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let fresh = path.with_extension("json.new");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all_at(bytes, 0)?;
    fs::rename(fresh, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> VmRecord {
        VmRecord {
            format: FORMAT,
            id: VmId::random(),
            role: Role::Clone,
            template: "default".into(),
            generation: None,
            process: ProcessStamp {
                pid: 1,
                start_ticks: 2,
            },
            accel: Accel::Tcg,
            created_at: Timestamp::UNIX_EPOCH,
            state: RecordedState::Launching,
            identity: None,
            lease: None,
            devices: Attached::default(),
        }
    }

    fn lease(value: String) -> LeaseRecord {
        LeaseRecord {
            leased_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            source: "pool".into(),
            vcpus: 1,
            memory_mib: 256,
            metadata: BTreeMap::from([("k".to_owned(), value)]),
            idempotency: None,
        }
    }

    #[test]
    fn what_was_written_last_is_read_whatever_its_size() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut file = RecordFile::create(folder.path(), record())?;
        for size in [0, 100, 9000, 10, 5000, 0] {
            file.update(|record| record.lease = Some(lease("x".repeat(size))))?;
            assert_eq!(
                VmRecord::read(folder.path())?,
                file.record,
                "with {size} bytes of metadata"
            );
        }
        assert_eq!(
            fs::read_dir(folder.path())?.count(),
            1,
            "nothing is left beside it"
        );
        Ok(())
    }

    #[test]
    fn a_record_of_another_format_is_not_read() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        RecordFile::create(
            folder.path(),
            VmRecord {
                format: FORMAT + 1,
                ..record()
            },
        )?;
        assert!(VmRecord::read(folder.path()).is_err());
        Ok(())
    }
}
