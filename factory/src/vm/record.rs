//! `vm.json`: what there is to know about a machine when the service that made it is gone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// What the runtime wrote on it.
    pub metadata: BTreeMap<String, String>,
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
}

impl VmRecord {
    pub(crate) const FORMAT: u32 = FORMAT;

    /// Writes the record beside the old one and puts it in its place: a reader finds one of the two, whole.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let fresh = dir.join("vm.json.new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, dir.join(FILE))
    }

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
