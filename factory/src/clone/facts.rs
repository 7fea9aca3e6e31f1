//! What is known of a clone.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::guest::IdentityDigest;
use crate::{Confinement, Phases, VmId};

/// Whether a clone's guest agent can be talked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AgentState {
    /// It speaks a protocol that this version speaks.
    #[default]
    Current,
    /// It is of a version that shares no protocol with this one. The clone can be looked at, renewed and released.
    Outdated,
}

impl AgentState {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Outdated => "outdated",
        }
    }
}

/// What is known of a clone.
#[derive(Clone, Debug)]
pub struct CloneFacts {
    /// Its id.
    pub id: VmId,
    /// The hypervisor's process.
    pub pid: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its start, by phase.
    pub phases: Phases,
    /// What its guest made of its new random numbers: no other living clone may have the same.
    pub digest: IdentityDigest,
    /// The socket of its serial console.
    pub console_socket: PathBuf,
    /// Its address on AF_VSOCK, where it has one.
    pub vsock_cid: Option<u32>,
    /// What keeps its hypervisor from the rest of the host, and what does not.
    pub confinement: Arc<[Confinement]>,
    /// The socket of the port that belongs to the sandbox's user.
    pub runtime_socket: PathBuf,
    /// Whether its guest can be talked to.
    pub agent: AgentState,
}
