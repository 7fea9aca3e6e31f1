//! Devices go into a machine.

use std::time::Duration;

use super::open::OpenDevices;
use super::spec::{Attached, MAX_DEVICES};
use crate::VmId;
use crate::driver::{Monitor, MonitorError, Plug, PlugKind};
use crate::guest::{Agent, GuestError};
use crate::wire::LinkError;

/// How long the guest may take to have drivers for what was plugged: a second alone, under emulation.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

/// Why devices could not be plugged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The hypervisor does not take what was opened: an image that is damaged, most of the time.
    #[error("{device}: the hypervisor does not take it: {reason}")]
    Refused {
        /// Which.
        device: String,
        /// Its words.
        reason: String,
    },
    /// The hypervisor failed.
    #[error("{device} could not be plugged: {source}")]
    Monitor {
        /// Which.
        device: String,
        /// Why not.
        source: MonitorError,
    },
    /// They cannot be written down.
    #[error("the virtual machine's record cannot be written: {source}")]
    Record {
        /// Why not.
        source: std::io::Error,
    },
    /// The guest failed, or does not see them.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// Plugs everything, and waits until the guest has drivers for it.
///
/// # Cancel safety
/// A dropped call leaves a machine with part of it: end it.
pub(crate) async fn attach(
    id: &VmId,
    monitor: &dyn Monitor,
    agent: &Agent,
    devices: &OpenDevices,
) -> Result<Attached, AttachError> {
    for (slot, plug) in plugs(id, devices)?.into_iter().enumerate() {
        let device = plug.device.clone();
        let plugged = monitor.plug_device(slot, plug).await;
        plugged.map_err(|source| failure(device, source))?;
    }
    let macs = devices.nics.iter().map(|nic| nic.mac.to_string()).collect();
    let serials = devices.serials(id).collect();
    let (nics, disks) = agent.attached(macs, serials, SEEN_WITHIN).await?;
    Ok(devices.attached(id, nics, disks))
}

/// What is plugged, in the order of the slots. The guest names devices in the order in which it finds them.
fn plugs(id: &VmId, devices: &OpenDevices) -> Result<Vec<Plug>, AttachError> {
    let copied = |device: &str, fd: &std::os::fd::OwnedFd| {
        fd.try_clone().map_err(|e| AttachError::Refused {
            device: device.to_owned(),
            reason: format!("its descriptor cannot be copied: {e}"),
        })
    };
    let mut plugs = Vec::with_capacity(MAX_DEVICES);
    for nic in &devices.nics {
        let device = match &nic.spec {
            super::NicSpec::Tap(name) => format!("the tap {name:?}"),
            super::NicSpec::User => "the user network".to_owned(),
        };
        let mac = nic.mac.to_string();
        let kind = match &nic.tap {
            Some(tap) => PlugKind::Tap {
                fd: copied(&device, tap)?,
                mac,
            },
            None => PlugKind::UserNet { mac },
        };
        plugs.push(Plug { device, kind });
    }
    for (disk, serial) in devices.disks.iter().zip(devices.serials(id)) {
        let device = format!("the disk {}", disk.spec.path.display());
        let kind = PlugKind::Disk {
            fd: copied(&device, &disk.file)?,
            is_block_device: matches!(disk.key, super::DiskKey::Block { .. }),
            format: disk.spec.format,
            read_only: disk.spec.read_only,
            serial,
        };
        plugs.push(Plug { device, kind });
    }
    Ok(plugs)
}

/// Whether it was the thing that was opened, or the machine that it was to go into.
fn failure(device: String, source: MonitorError) -> AttachError {
    match source {
        MonitorError::Command {
            command: "blockdev-add" | "netdev_add",
            source: LinkError::Refused(reason),
        } => AttachError::Refused { device, reason },
        source => AttachError::Monitor { device, source },
    }
}
