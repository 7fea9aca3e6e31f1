//! What a generation says of itself: `manifest.json`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::WallNs;
use crate::guest::ProcessControl;
use crate::kernel::KernelVersion;
use crate::memory::{self, MemorySurvey};
use crate::rights::{create_own, write_own};
use crate::shortage::in_words;
use crate::{Accel, Argv, GenerationId, HostCpu, MachineType, Phases, Size, SizeRange};

/// The file's name.
const FILE: &str = "manifest.json";
/// The field that holds the digest of the others.
const SEAL: &str = "seal";

/// A generation's description of itself. Its existence says that the generation is whole and was verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of this file.
    pub format: u32,
    /// The template.
    pub template: String,
    /// The generation.
    pub generation: GenerationId,
    /// When it was published.
    pub built_at: Timestamp,
    /// What it was built with: compared with what is wanted now.
    pub recipe: Recipe,
    /// Its files.
    pub files: Files,
    /// What its memory is made of.
    pub memory: MemorySurvey,
    /// The newest protocol that the guest's agent speaks. Generations from before there was a number have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u16>,
    /// How the guest keeps processes apart. Generations from before this was recorded have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_control: Option<ProcessControl>,
    /// The release of the guest's kernel, where its image tells: generations from before this was said have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_kernel: Option<String>,
    /// How the guest's clock stood when it was paused.
    pub(crate) clock: SavedClock,
    /// The template's cold boot.
    #[serde(rename = "boot_ms")]
    pub boot_phases: Phases,
    /// From the first command's order to its answer, right after the cold boot.
    #[serde(rename = "first_exec_ms", with = "crate::ms")]
    pub first_exec: Duration,
    /// How long each step of the build took, in order.
    pub build_phases: Vec<(String, Duration)>,
    /// What the canaries showed.
    pub report: VerifyReport,
}

/// Everything that makes one build differ from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The hypervisor's version.
    pub qemu_version: String,
    /// Digest of the hypervisor's program.
    pub qemu_digest: String,
    /// The accelerator.
    pub accel: Accel,
    /// The host's processor.
    pub host_cpu: HostCpu,
    /// The board.
    pub machine: MachineType,
    /// The devices that a machine has: generations from before this was said have 0.
    #[serde(default)]
    pub devices: u32,
    /// The CPU model given to the hypervisor.
    pub cpu: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Virtual CPUs that hotplug can reach: as many as `vcpus` where the board has no hotplug.
    pub max_vcpus: u32,
    /// Guest memory, MiB.
    pub memory_mib: u64,
    /// Memory that hotplug can reach, MiB: as much as `memory_mib` where the board has no hotplug.
    pub max_memory_mib: u64,
    /// Whether there is a device for AF_VSOCK.
    pub vsock: bool,
    /// Digest of the kernel.
    pub kernel: String,
    /// Digest of the initial RAM disk.
    pub initrd: String,
    /// All kernel parameters.
    pub kernel_params: String,
    /// The warm-up commands.
    pub warmup: Vec<Argv>,
    /// The verification commands.
    pub verify: Vec<Argv>,
}

/// The files of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The guest's memory.
    pub memory: FileSeal,
    /// The device state.
    pub state: FileSeal,
    /// What a clone is given instead of a kernel.
    pub kernel_stub: FileSeal,
}

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSeal {
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub digest: String,
}

/// How a guest's clock stood when it was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedClock {
    /// The host's time when the guest was paused.
    pub(crate) paused_at: WallNs,
    /// How far the guest's clock was ahead of the host's.
    pub(crate) ahead_ns: i64,
}

impl SavedClock {
    /// How much the clock of a guest that runs again since `resumed_at` is behind.
    pub(crate) fn behind_ns(self, resumed_at: WallNs) -> i64 {
        resumed_at
            .since(self.paused_at)
            .saturating_sub(self.ahead_ns)
    }
}

/// What the verification of a generation showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// One report for each canary: all of them answered, with an identity of their own.
    pub canaries: Vec<CanaryReport>,
    /// That the digest of `memory` is the same after the canaries as before them.
    pub memory_unchanged: bool,
}

/// What one canary showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    /// Fresh random bytes of its kernel, hexadecimal.
    pub random: String,
    /// A UUID of its kernel.
    pub uuid: String,
    /// Its machine id.
    pub machine_id: String,
    /// Whether its kernel reseeded because it saw that it is a clone.
    pub reseeded: bool,
    /// Its start.
    #[serde(rename = "startup_ms")]
    pub phases: Phases,
}

impl Manifest {
    /// The format that this program writes, and the only one that it reads.
    pub(crate) const FORMAT: u32 = 2;

    /// The sizes that clones of this generation can have.
    #[must_use]
    pub fn sizes(&self) -> SizeRange {
        let recipe = &self.recipe;
        let fixed = match recipe.machine {
            MachineType::Microvm => Some("machine type microvm has no hotplug"),
            MachineType::Q35 => None,
        };
        SizeRange {
            least: Size {
                vcpus: recipe.vcpus,
                memory_mib: recipe.memory_mib,
            },
            most: Size {
                vcpus: recipe.max_vcpus,
                memory_mib: recipe.max_memory_mib,
            },
            fixed,
            refuses_vcpus: self.refuses_vcpus(),
        }
    }

    /// The guest's kernel, where it is known to refuse virtual CPUs that are plugged in. KVM tells it that it is in a
    /// virtual machine; under emulation nothing does.
    fn refuses_vcpus(&self) -> Option<KernelVersion> {
        let kernel = KernelVersion::parse(self.guest_kernel.as_deref()?)?;
        let refuses = kernel >= KernelVersion::REFUSES_EMULATED_VCPUS;
        (refuses && self.recipe.accel == Accel::Tcg).then_some(kernel)
    }

    /// Writes the manifest: the last act of a build. It is there whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let fresh = dir.join("manifest.json.new");
        let mut file = create_own(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(&self.to_sealed()?)?)?;
        file.sync_all()?;
        fs::rename(fresh, dir.join(FILE))
    }

    /// Writes a copy into the directory of a machine, for the service after this one: should it find the generation's
    /// own gone or altered, it still knows what the machine is. A machine without its record's last state is never taken
    /// up, and that is written after this: so the copy may be written in pieces.
    pub(crate) fn leave_copy(&self, machine: &Path) -> io::Result<()> {
        write_own(
            &machine.join(FILE),
            &serde_json::to_vec(&self.to_sealed()?)?,
        )
    }

    fn to_sealed(&self) -> io::Result<Value> {
        sealed(serde_json::to_value(self)?)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When there is none, none of this format, or not one byte for byte as it was written.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        let invalid =
            |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: {why}"));
        let bytes = fs::read(dir.join(FILE))
            .map_err(|e| in_words(format!("{FILE} cannot be read: {e}"), e))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
        if value.get("format").and_then(Value::as_u64) != Some(Self::FORMAT.into()) {
            let found = value.get("format").unwrap_or(&Value::Null);
            return Err(invalid(format!(
                "format {found}, and this program reads {}",
                Self::FORMAT
            )));
        }
        if sealed(value.clone())? != value {
            return Err(invalid(
                "its seal does not agree with what it says".to_owned(),
            ));
        }
        serde_json::from_value(value).map_err(|e| invalid(e.to_string()))
    }
}

/// Whether a generation has a manifest, whatever is in it: its build has come to its end.
pub(super) fn is_there(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

/// Removes the manifest, and with it the generation, as far as anybody can tell. One that is gone is removed.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A manifest with the digest of everything else in it: nobody looks at every field later on.
fn sealed(mut manifest: Value) -> io::Result<Value> {
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove(SEAL);
        // The keys of a JSON value are sorted, so the same content always gives the same bytes.
        let digest = memory::bytes_digest(&serde_json::to_vec(&*fields)?);
        fields.insert(SEAL.to_owned(), Value::String(digest));
    }
    Ok(manifest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::template::stale::tests::recipe;

    /// A manifest of files that are none.
    pub(crate) fn manifest() -> Manifest {
        let seal = || FileSeal {
            bytes: 0,
            digest: memory::bytes_digest(&[]),
        };
        Manifest {
            format: Manifest::FORMAT,
            template: "default".into(),
            generation: GenerationId::new(),
            built_at: Timestamp::UNIX_EPOCH,
            recipe: recipe(),
            files: Files {
                memory: seal(),
                state: seal(),
                kernel_stub: seal(),
            },
            memory: MemorySurvey::default(),
            protocol: None,
            process_control: None,
            guest_kernel: None,
            clock: SavedClock {
                paused_at: WallNs(0),
                ahead_ns: 0,
            },
            boot_phases: Phases::default(),
            first_exec: Duration::ZERO,
            build_phases: Vec::new(),
            report: VerifyReport {
                canaries: Vec::new(),
                memory_unchanged: true,
            },
        }
    }

    fn refused(accel: Accel, guest_kernel: Option<&str>) -> Option<String> {
        let recipe = Recipe { accel, ..recipe() };
        let manifest = Manifest {
            guest_kernel: guest_kernel.map(str::to_owned),
            recipe,
            ..manifest()
        };
        Some(manifest.sizes().refuses_vcpus?.to_string())
    }

    #[test]
    fn a_new_kernel_under_emulation_takes_no_more_virtual_cpus() {
        let debian_13 = Some("6.12.38+deb13-amd64");
        assert_eq!(refused(Accel::Tcg, debian_13).as_deref(), Some("6.12"));
        assert_eq!(refused(Accel::Kvm, debian_13), None);
        assert_eq!(refused(Accel::Tcg, Some("6.8.0-60-generic")), None);
        assert_eq!(refused(Accel::Tcg, Some("not a release")), None);
        assert_eq!(refused(Accel::Tcg, None), None, "it is not known");
    }

    #[test]
    fn a_manifest_from_before_kernels_were_named_is_read_as_it_was_written() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        for guest_kernel in [None, Some("6.1.0-56-amd64".to_owned())] {
            let manifest = Manifest {
                guest_kernel: guest_kernel.clone(),
                ..manifest()
            };
            manifest.write(folder.path())?;
            let text = fs::read_to_string(folder.path().join(FILE))?;
            assert_eq!(text.contains("guest_kernel"), guest_kernel.is_some());
            assert_eq!(Manifest::read(folder.path())?.guest_kernel, guest_kernel);
        }
        Ok(())
    }
}
