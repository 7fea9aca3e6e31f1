//! Descriptors of what is asked for.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::caller::{Caller, RightsError};
use super::disk::open_disk;
use super::spec::{
    Attached, AttachedDisk, AttachedNic, DeviceSpecs, DiskSpec, MAX_DEVICES, Mac, NicSpec,
};
use super::tap::open_tap;
use crate::VmId;
use crate::aside::aside;

/// Why a device cannot be had. All of it is the request's to mend: no clone was taken for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The disk.
    #[error("the disk {}: {reason}", .path.display())]
    Disk {
        /// As it was asked for.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The tap.
    #[error("the tap {name:?}: {reason}")]
    Tap {
        /// As it was asked for.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The hypervisor lacks something.
    #[error("a user network: this QEMU was built without it (libslirp)")]
    NoUserNetwork,
    /// Machines of this factory may open no TCP connection, which such a network needs.
    #[error("a user network: hypervisors of this service may open no TCP connection")]
    UserNetworksOff,
    /// There are more than fit.
    #[error("nics and disks are {count} together, and the limit is {MAX_DEVICES}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// The caller's rights cannot be used.
    #[error("nics and disks: {0}")]
    Rights(#[from] RightsError),
}

/// Which disk it is, by whatever name it was opened.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum DiskKey {
    /// A regular file.
    File {
        /// The file system's number.
        device: u64,
        /// The file's number in it.
        inode: u64,
    },
    /// A block device.
    Block {
        /// Its number.
        device: u64,
    },
}

/// A disk that was opened.
#[derive(Debug)]
pub struct OpenDisk {
    /// As it was asked for.
    pub spec: DiskSpec,
    /// Which it is.
    pub key: DiskKey,
    pub(crate) file: OwnedFd,
}

/// A network interface that can be plugged.
#[derive(Debug)]
pub struct OpenNic {
    /// As it was asked for.
    pub spec: NicSpec,
    /// The address that it will have.
    pub mac: Mac,
    /// The tap, where it is one.
    pub(crate) tap: Option<OwnedFd>,
}

/// What a request names, open and checked. It can be plugged into one clone after the other, until one works.
#[derive(Debug, Default)]
pub struct OpenDevices {
    /// In the order of the request.
    pub nics: Vec<OpenNic>,
    /// In the order of the request.
    pub disks: Vec<OpenDisk>,
}

impl OpenDevices {
    /// Gives every interface another address.
    pub fn renew_macs(&mut self) {
        self.nics.iter_mut().for_each(|nic| nic.mac = Mac::random());
    }

    /// The serial of each disk in this machine.
    pub fn serials<'a>(&'a self, id: &'a VmId) -> impl Iterator<Item = String> + 'a {
        (0..self.disks.len()).map(move |number| format!("{id}-{number}"))
    }

    /// What a machine has, once its guest has named the devices: in their order.
    #[must_use]
    pub fn attached(&self, id: &VmId, nics: Vec<String>, disks: Vec<String>) -> Attached {
        let nic = |(nic, name): (&OpenNic, String)| AttachedNic {
            spec: nic.spec.clone(),
            mac: nic.mac.to_string(),
            name,
        };
        let disk = |((disk, serial), name): ((&OpenDisk, String), String)| AttachedDisk {
            spec: disk.spec.clone(),
            serial,
            name,
        };
        Attached {
            nics: self.nics.iter().zip(nics).map(nic).collect(),
            disks: self
                .disks
                .iter()
                .zip(self.serials(id))
                .zip(disks)
                .map(disk)
                .collect(),
        }
    }
}

/// Opens everything that is asked for, with the caller's rights.
///
/// # Errors
/// See [`DeviceError`]: the first thing that cannot be had; nothing stays open.
///
/// # Cancel safety
/// A dropped call opens what it had begun to, and closes it again.
pub async fn open_devices(specs: DeviceSpecs, caller: Caller) -> Result<OpenDevices, DeviceError> {
    let count = specs.count();
    if count > MAX_DEVICES {
        return Err(DeviceError::TooMany { count });
    }
    aside(move || caller.does(|| open_all(&specs, &caller))?).await
}

fn open_all(specs: &DeviceSpecs, caller: &Caller) -> Result<OpenDevices, DeviceError> {
    let disks = specs.disks.iter().map(open_disk);
    let nics = specs.nics.iter().map(|spec| {
        let tap = match spec {
            NicSpec::Tap(name) => Some(open_tap(name, caller)?),
            NicSpec::User => None,
        };
        Ok(OpenNic {
            spec: spec.clone(),
            mac: Mac::random(),
            tap,
        })
    });
    // Files first: a tap that is opened has a carrier, which others see.
    let disks = disks.collect::<Result<_, DeviceError>>()?;
    let nics = nics.collect::<Result<_, DeviceError>>()?;
    Ok(OpenDevices { nics, disks })
}
