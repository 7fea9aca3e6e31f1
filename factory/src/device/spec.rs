//! What is asked for, and what a clone has then.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Devices of one clone at most: each is plugged into a root port of its own, and the template has as many.
pub const MAX_DEVICES: usize = 6;

/// A network interface that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicSpec {
    /// At this tap of the host, which is there already.
    Tap(String),
    /// At the hypervisor's own network: what its process can reach, the guest can.
    User,
}

/// How a disk's content is to be read. It is never guessed: a guest could write a header into a raw disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Byte for byte.
    #[default]
    Raw,
    /// QEMU's own format.
    Qcow2,
}

impl DiskFormat {
    /// The name in QEMU's words, and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A disk that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// A regular file or a block device of the host: an absolute path.
    pub path: PathBuf,
    /// What is in it.
    pub format: DiskFormat,
    /// Whether the guest cannot write to it.
    pub read_only: bool,
}

/// All devices that are asked for, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSpecs {
    /// Network interfaces.
    pub nics: Vec<NicSpec>,
    /// Disks.
    pub disks: Vec<DiskSpec>,
}

impl DeviceSpecs {
    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nics.len() + self.disks.len()
    }
}

/// The address of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// A new one: of those that nobody but this host gives out, and of one interface.
    #[must_use]
    pub fn random() -> Self {
        const LOCAL: u8 = 0b10;
        const GROUP: u8 = 0b01;
        let mut bytes: [u8; 6] = rand::random();
        bytes[0] = (bytes[0] | LOCAL) & !GROUP;
        Self(bytes)
    }
}

impl std::str::FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            let part = part.ok_or(MacError)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        parts
            .next()
            .is_none()
            .then_some(Self(bytes))
            .ok_or(MacError)
    }
}

/// What was read is no address of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is six pairs of hexadecimal digits with colons between them")]
pub struct MacError;

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network interface that a clone has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedNic {
    /// What it is connected to.
    #[serde(flatten)]
    pub spec: NicSpec,
    /// Its address.
    pub mac: String,
    /// Its name in the guest.
    pub name: String,
}

/// A disk that a clone has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedDisk {
    /// What it is.
    #[serde(flatten)]
    pub spec: DiskSpec,
    /// By which the guest knows it.
    pub serial: String,
    /// Its name in the guest, without `/dev/`.
    pub name: String,
}

/// The devices that a clone was given, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Network interfaces.
    pub nics: Vec<AttachedNic>,
    /// Disks.
    pub disks: Vec<AttachedDisk>,
}

impl Attached {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nics.is_empty() && self.disks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_local_and_of_one_interface() {
        for _ in 0..1000 {
            let mac = Mac::random();
            assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}");
        }
        assert_eq!(
            Mac([0x02, 0, 0xff, 1, 0x1a, 9]).to_string(),
            "02:00:ff:01:1a:09"
        );
        let mac = Mac::random();
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for wrong in [
            "",
            "02:00:ff:01:1a",
            "02:00:ff:01:1a:9",
            "02:00:ff:01:1a:09:00",
            "02:00:ff:01:1a:0g",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(MacError), "{wrong}");
        }
    }

    #[test]
    fn what_a_clone_has_is_read_as_it_was_written() -> serde_json::Result<()> {
        let attached = Attached {
            nics: vec![
                AttachedNic {
                    spec: NicSpec::Tap("tap0".into()),
                    mac: "02:00:00:00:00:01".into(),
                    name: "eth0".into(),
                },
                AttachedNic {
                    spec: NicSpec::User,
                    mac: "02:00:00:00:00:02".into(),
                    name: "eth1".into(),
                },
            ],
            disks: vec![AttachedDisk {
                spec: DiskSpec {
                    path: "/d".into(),
                    format: DiskFormat::Qcow2,
                    read_only: true,
                },
                serial: "s".into(),
                name: "vda".into(),
            }],
        };
        let text = serde_json::to_string(&attached)?;
        assert_eq!(serde_json::from_str::<Attached>(&text)?, attached, "{text}");
        Ok(())
    }
}
