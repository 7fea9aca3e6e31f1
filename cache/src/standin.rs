//! Stands in for types that `vmint_factory` is about to export, under the same names and with the same fields.
//! It goes away with them.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vmint_factory::Argv;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleField {
    pub field: String,
    pub built_with: String,
    pub now: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuildStep {
    Reserving,
    Booting,
    Ready,
    Warming,
    Saving,
    Verifying,
    Publishing,
}

impl BuildStep {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserving => "reserving",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Warming => "warming",
            Self::Saving => "saving",
            Self::Verifying => "verifying",
            Self::Publishing => "publishing",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub hostname: String,
    pub machine_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    pub argv: Argv,
    pub env: BTreeMap<String, String>,
    pub cwd: Option<String>,
    pub stdin: Vec<u8>,
    pub timeout: Option<Duration>,
    pub max_output_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutcome {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub truncated: bool,
    pub elapsed: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("the channel to the guest agent is closed")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("cannot run {argv0:?} in the guest: {reason}")]
    Spawn { argv0: String, reason: String, errno: i32 },
    #[error("the command did not end within {} ms; it was killed", after.as_millis())]
    Deadline { after: Duration },
    #[error("the command cannot be passed to the guest: {reason}")]
    Invalid { reason: String },
    #[error(transparent)]
    Guest(#[from] GuestError),
}
