//! Where the time of a start goes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One stretch of the start of a virtual machine. The names are those of the metric and of `startup_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// From the order to the hypervisor's process: directory, sockets, fork, exec.
    Spawn,
    /// Until the monitor has answered and its capabilities are set.
    Qmp,
    /// Until the device state is loaded (a clone only).
    Load,
    /// Until the virtual CPUs run (a clone only).
    Resume,
    /// Until the guest agent has answered.
    Agent,
    /// Until the guest has a new identity and has proved it (a clone only).
    Identity,
    /// The warm-up commands.
    Warmup,
    /// All of them.
    Total,
}

impl Phase {
    /// Every phase, in the order in which they happen.
    pub const ALL: [Self; 8] = [
        Self::Spawn,
        Self::Qmp,
        Self::Load,
        Self::Resume,
        Self::Agent,
        Self::Identity,
        Self::Warmup,
        Self::Total,
    ];

    /// The phase as metrics and JSON name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Qmp => "qmp",
            Self::Load => "load",
            Self::Resume => "resume",
            Self::Agent => "agent",
            Self::Identity => "identity",
            Self::Warmup => "warmup",
            Self::Total => "total",
        }
    }
}

/// How long each phase of one start took. A phase that did not happen is zero. In JSON: milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// See [`Phase::Spawn`].
    #[serde(with = "crate::ms")]
    pub spawn: Duration,
    /// See [`Phase::Qmp`].
    #[serde(with = "crate::ms")]
    pub qmp: Duration,
    /// See [`Phase::Load`].
    #[serde(with = "crate::ms")]
    pub load: Duration,
    /// See [`Phase::Resume`].
    #[serde(with = "crate::ms")]
    pub resume: Duration,
    /// See [`Phase::Agent`].
    #[serde(with = "crate::ms")]
    pub agent: Duration,
    /// See [`Phase::Identity`].
    #[serde(with = "crate::ms")]
    pub identity: Duration,
    /// See [`Phase::Warmup`].
    #[serde(with = "crate::ms")]
    pub warmup: Duration,
    /// See [`Phase::Total`].
    #[serde(with = "crate::ms")]
    pub total: Duration,
}

impl Phases {
    /// The duration of one phase.
    #[must_use]
    pub fn get(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Spawn => self.spawn,
            Phase::Qmp => self.qmp,
            Phase::Load => self.load,
            Phase::Resume => self.resume,
            Phase::Agent => self.agent,
            Phase::Identity => self.identity,
            Phase::Warmup => self.warmup,
            Phase::Total => self.total,
        }
    }

    pub(crate) fn set(&mut self, phase: Phase, took: Duration) {
        match phase {
            Phase::Spawn => self.spawn = took,
            Phase::Qmp => self.qmp = took,
            Phase::Load => self.load = took,
            Phase::Resume => self.resume = took,
            Phase::Agent => self.agent = took,
            Phase::Identity => self.identity = took,
            Phase::Warmup => self.warmup = took,
            Phase::Total => self.total = took,
        }
    }
}
