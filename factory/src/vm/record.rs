//! `vm.json`: what there is to know about a machine when the service that made it is gone.
//!
//! It says enough to take the machine up again: which process it is, what it was made from, where it stands in its life
//! and who has it. How it is kept on disk, so that a crash leaves the old record or the new one and nothing between, is
//! in `record_file.rs`.
//!
//! A process is named by its number, its start time and the host's boot: all three together never come again, so a
//! record that is old, restored from a backup or left by another boot names nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vmint_guest_protocol::{PROTOCOL, PROTOCOL_OLDEST, common};

use crate::clock::{Moment, WallNs};
use crate::device::{Attached, DiskKey};
use crate::guest::{Identity, IdentityDigest};
use crate::process::ProcessStamp;
use crate::{Accel, Argv, Confinement, GenerationId, Phases, Size, VmId};

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
    /// It is being made fit for somebody, and is nobody else's any more: bound, resumed or grown half-way.
    Preparing,
    /// Somebody has it.
    Leased,
    /// It is being ended.
    Releasing,
}

/// Where a sandbox came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// From the warm pool, at once or after a wait for the refill.
    Pool,
    /// Made for the request.
    Clone,
}

impl Source {
    /// The name in metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Clone => "clone",
        }
    }
}

/// Who has a machine and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The host's user that it was handed to. Records of earlier versions have none: those belong to the service's user.
    #[serde(default = "own_uid")]
    pub owner_uid: u32,
    /// When it was handed out.
    pub leased_at: Timestamp,
    /// When the right to it ends; none is until it is released.
    pub expires_at: Option<Timestamp>,
    /// Where it came from.
    pub source: Source,
    /// How long the checkout took.
    #[serde(rename = "checkout_us", with = "micros")]
    pub checkout: Duration,
    /// How large it is, with what was plugged in for it.
    #[serde(flatten)]
    pub size: Size,
    /// What the runtime wrote on it.
    pub metadata: BTreeMap<String, String>,
    /// What the request was named by, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<RequestKey>,
}

fn own_uid() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}

/// Durations in whole microseconds.
mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
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
    /// The boot of the host in which the process was started.
    pub(crate) boot_id: String,
    /// The program that the process runs, as the kernel names it.
    pub(crate) program: PathBuf,
    pub(crate) accel: Accel,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) console_max_bytes: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) state: RecordedState,
    /// Since when its virtual CPUs are stopped; none while they run.
    pub(crate) paused_at: Option<WallNs>,
    /// When its guest's clock was set by the host's, right after the restore.
    #[serde(default)]
    pub(crate) clock_set_at: Option<Moment>,
    /// The newest protocol that its guest's agent speaks. Machines from before there was a number have none.
    #[serde(default)]
    pub(crate) protocol: Option<u16>,
    /// The oldest one that it still speaks.
    #[serde(default)]
    pub(crate) protocol_oldest: Option<u16>,
    pub(crate) phases: Option<Phases>,
    pub(crate) identity: Option<Identity>,
    /// What its guest made of its new random numbers.
    pub(crate) digest: Option<IdentityDigest>,
    pub(crate) vsock_cid: Option<u32>,
    /// What keeps its process from the rest of the host. Machines from before this was recorded have an empty list.
    #[serde(default)]
    pub(crate) confinement: Vec<Confinement>,
    /// Whether its process may open TCP connections. Machines from before this was recorded may.
    #[serde(default = "unless_told")]
    pub(crate) may_connect: bool,
    pub(crate) lease: Option<LeaseRecord>,
    /// Commands that were run in it before it was ready.
    pub(crate) on_clone: Vec<Argv>,
    /// What was plugged into it when it was handed out.
    #[serde(default, skip_serializing_if = "Attached::is_empty")]
    pub(crate) devices: Attached,
    /// Which disks those are, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) disk_keys: Vec<DiskKey>,
    /// When this was written.
    pub(crate) written: Moment,
}

/// Whether a process may open TCP connections of which nothing says so.
fn unless_told() -> bool {
    true
}

impl VmRecord {
    /// The format that this program writes, and the only one that it reads.
    pub(crate) const FORMAT: u32 = 2;

    /// How much is left of its lease at a moment: zero when it has run out. `None` when there is no lease, or one
    /// without an end.
    pub(crate) fn lease_left(&self, now: Moment) -> Option<Duration> {
        let left = self.lease_left_ns(now)?;
        Some(Duration::from_nanos(
            u64::try_from(left).unwrap_or_default(),
        ))
    }

    /// The same in nanoseconds; below zero, how long ago it has run out.
    ///
    /// It is counted by the clock that nobody sets, from the moment of writing on: a host whose wall clock is set
    /// while no service looks neither ends a lease nor prolongs it.
    pub(crate) fn lease_left_ns(&self, now: Moment) -> Option<i64> {
        let expires_at = self.lease.as_ref()?.expires_at?;
        let left_then = WallNs::of(expires_at).since(self.written.wall);
        let since = i64::try_from(now.after(self.written).as_nanos()).unwrap_or(i64::MAX);
        Some(left_then.saturating_sub(since))
    }
}

impl VmRecord {
    /// Whether its guest's agent is of a version that cannot be talked to: an earlier one, or a later one that has given up
    /// the protocols of this one.
    pub(crate) fn is_outdated(&self) -> bool {
        self.protocol.is_none_or(|newest| {
            let oldest = self.protocol_oldest.unwrap_or(PROTOCOL_OLDEST);
            common((PROTOCOL, PROTOCOL_OLDEST), (newest, oldest)).is_none()
        })
    }

    /// The record as it is told at a moment. Where the wall clock was set since it was written, the end of its lease is
    /// another time of day, as far away as before.
    pub(crate) fn told_at(&mut self, now: Moment) {
        let end = self.lease.as_mut().and_then(|l| l.expires_at.as_mut());
        if let (Some(set_by), Some(end)) = (now.wall_set_by(self.written), end) {
            *end = WallNs(WallNs::of(*end).0.saturating_add(set_by)).timestamp();
        }
        self.written = now;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record of a clone that nobody has.
    pub(crate) fn record() -> VmRecord {
        VmRecord {
            format: VmRecord::FORMAT,
            id: VmId::random(),
            role: Role::Clone,
            template: "default".into(),
            generation: None,
            process: ProcessStamp {
                pid: 1,
                start_ticks: 2,
            },
            boot_id: "boot".into(),
            program: "/usr/bin/qemu".into(),
            accel: Accel::Tcg,
            vcpus: 1,
            memory_mib: 256,
            console_max_bytes: 1 << 20,
            created_at: Timestamp::UNIX_EPOCH,
            state: RecordedState::Launching,
            paused_at: None,
            clock_set_at: None,
            protocol: None,
            protocol_oldest: None,
            phases: None,
            identity: None,
            digest: None,
            vsock_cid: None,
            confinement: Vec::new(),
            may_connect: false,
            lease: None,
            on_clone: Vec::new(),
            devices: Attached::default(),
            disk_keys: Vec::new(),
            written: Moment::now(),
        }
    }

    pub(crate) fn lease(value: String) -> LeaseRecord {
        LeaseRecord {
            owner_uid: 1000,
            leased_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            source: Source::Pool,
            checkout: Duration::from_micros(250),
            size: Size {
                vcpus: 1,
                memory_mib: 256,
            },
            metadata: BTreeMap::from([("k".to_owned(), value)]),
            idempotency: None,
        }
    }

    #[test]
    fn a_machine_of_an_earlier_version_has_an_outdated_agent() -> anyhow::Result<()> {
        let mut json = serde_json::to_value(record())?;
        let fields = json.as_object_mut().expect("a structure is an object");
        fields.remove("protocol");
        fields.insert("agent".to_owned(), "vmint-agent".into());
        let mut read: VmRecord = serde_json::from_value(json)?;
        assert!(read.is_outdated());
        for (protocol, oldest, is_outdated) in [
            (PROTOCOL_OLDEST - 1, None, true),
            (PROTOCOL_OLDEST, None, false),
            (PROTOCOL + 1, Some(PROTOCOL), false),
            (PROTOCOL + 1, Some(PROTOCOL + 1), true),
        ] {
            read.protocol = Some(protocol);
            read.protocol_oldest = oldest;
            assert_eq!(read.is_outdated(), is_outdated, "{oldest:?} to {protocol}");
        }
        Ok(())
    }

    #[test]
    fn a_lease_of_an_earlier_version_is_the_services_own() -> anyhow::Result<()> {
        let written = lease(String::new());
        let mut json = serde_json::to_value(&written)?;
        assert_eq!(
            json,
            serde_json::json!({
                "owner_uid": 1000, "leased_at": "1970-01-01T00:00:00Z", "expires_at": null, "source": "pool",
                "checkout_us": 250, "vcpus": 1, "memory_mib": 256, "metadata": {"k": ""},
            })
        );
        assert_eq!(
            serde_json::from_value::<LeaseRecord>(json.clone())?,
            written
        );
        let fields = json.as_object_mut().expect("a structure is an object");
        fields.remove("owner_uid");
        let read: LeaseRecord = serde_json::from_value(json)?;
        assert_eq!(read.owner_uid, own_uid());
        Ok(())
    }

    #[test]
    fn a_lease_runs_out_by_the_clock_that_nobody_sets() -> anyhow::Result<()> {
        let second = |s: i64| s * 1_000_000_000;
        let at = |wall: i64, boot: u64| Moment {
            wall: WallNs(second(wall)),
            since_boot: Duration::from_secs(boot),
        };
        let mut record = VmRecord {
            written: at(1000, 50),
            ..record()
        };
        assert_eq!(record.lease_left(at(1000, 50)), None, "nobody has it");
        record.lease = Some(lease(String::new()));
        assert_eq!(record.lease_left(at(1000, 50)), None, "it has no end");
        if let Some(lease) = &mut record.lease {
            lease.expires_at = Some(Timestamp::from_second(1060)?);
        }
        let left = |now| record.lease_left(now).map(|left| left.as_secs());
        assert_eq!(left(at(1010, 60)), Some(50));
        assert_eq!(left(at(5, 60)), Some(50), "the wall clock was set back");
        assert_eq!(left(at(9999, 60)), Some(50), "and forth");
        assert_eq!(left(at(1010, 111)), Some(0), "it has run out");
        Ok(())
    }

    #[test]
    fn the_end_of_a_lease_is_told_by_the_clock_as_it_is_set_now() -> anyhow::Result<()> {
        let at = |wall_ms: i64, boot: u64| Moment {
            wall: WallNs(wall_ms * 1_000_000),
            since_boot: Duration::from_secs(boot),
        };
        let told = Timestamp::from_second(1060)?;
        // Now, by both clocks; the end that is told then, and what is left.
        for (now, end_s, left_s) in [
            (at(1_010_000, 60), 1060, 50),
            (at(1_010_400, 60), 1060, 49),
            (at(87_410_000, 60), 87_460, 50),
            (at(5_000, 60), 55, 50),
            (at(87_410_000, 160), 87_360, 0),
        ] {
            let mut record = VmRecord {
                written: at(1_000_000, 50),
                lease: Some(LeaseRecord {
                    expires_at: Some(told),
                    ..lease(String::new())
                }),
                ..record()
            };
            record.told_at(now);
            let end = record.lease.as_ref().and_then(|lease| lease.expires_at);
            assert_eq!(end, Some(Timestamp::from_second(end_s)?));
            let left = record.lease_left(now).map(|left| left.as_secs());
            assert_eq!(left, Some(left_s));
        }
        Ok(())
    }
}
