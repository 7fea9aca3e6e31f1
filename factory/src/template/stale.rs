//! In what a generation differs from what is wanted, and what of that cannot be told at present.
//!
//! A file that cannot be read is not another file: its field is *unverified*, and the generation is stale only where it is
//! known to differ.

use serde::{Deserialize, Serialize};

use super::manifest::Recipe;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleField {
    /// What differs, in the manifest's words.
    pub field: String,
    /// What the generation was built with.
    pub built_with: String,
    /// What is wanted now.
    pub now: String,
}

/// A field that cannot be compared at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedField {
    /// The field, in the manifest's words.
    pub field: String,
    /// Why it cannot be compared.
    pub reason: String,
}

/// How a generation compares with what would be built now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staleness {
    /// The fields that are known to differ.
    pub differing: Vec<StaleField>,
    /// The fields that cannot be compared at present.
    pub unverified: Vec<UnverifiedField>,
}

/// What a template would be built with now, as far as that can be read.
#[derive(Clone, Debug)]
pub(crate) struct RecipeNow {
    recipe: Recipe,
    unverified: Vec<UnverifiedField>,
}

impl RecipeNow {
    /// `recipe` has any value at all in the fields that are `unverified`.
    pub(crate) fn new(recipe: Recipe, unverified: Vec<UnverifiedField>) -> Self {
        Self { recipe, unverified }
    }

    /// How a generation that was built with `built_with` compares with it.
    pub(crate) fn compare(&self, built_with: &Recipe) -> Staleness {
        let is_known = |stale: &StaleField| {
            let mut unverified = self.unverified.iter();
            unverified.all(|one| one.field != stale.field)
        };
        let differences = built_with.differences(&self.recipe);
        Staleness {
            differing: differences.into_iter().filter(is_known).collect(),
            unverified: self.unverified.clone(),
        }
    }
}

impl Recipe {
    /// Every field in which another recipe differs from this one.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<StaleField> {
        let (built_with, now) = (self.fields(), now.fields());
        let differing = built_with
            .into_iter()
            .zip(now)
            .filter(|(was, is)| was != is);
        differing
            .map(|((field, built_with), (_, now))| StaleField {
                field: field.to_owned(),
                built_with,
                now,
            })
            .collect()
    }

    /// All fields by name. The pattern makes the compiler say when one is missing here.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let Self {
            qemu_version,
            qemu_digest,
            accel,
            host_cpu,
            machine,
            devices,
            cpu,
            vcpus,
            max_vcpus,
            memory_mib,
            max_memory_mib,
            vsock,
            kernel,
            initrd,
            kernel_params,
            warmup,
            verify,
        } = self;
        vec![
            ("qemu_version", qemu_version.clone()),
            ("qemu_digest", qemu_digest.clone()),
            ("accel", accel.as_str().to_owned()),
            ("host_cpu.vendor", host_cpu.vendor.clone()),
            ("host_cpu.family", host_cpu.family.clone()),
            ("host_cpu.model", host_cpu.model.clone()),
            ("host_cpu.stepping", host_cpu.stepping.clone()),
            ("host_cpu.flags", host_cpu.flags.clone()),
            ("machine", machine.as_str().to_owned()),
            ("devices", devices.to_string()),
            ("cpu", cpu.clone()),
            ("vcpus", vcpus.to_string()),
            ("max_vcpus", max_vcpus.to_string()),
            ("memory_mib", memory_mib.to_string()),
            ("max_memory_mib", max_memory_mib.to_string()),
            ("vsock", vsock.to_string()),
            ("kernel", kernel.clone()),
            ("initrd", initrd.clone()),
            ("kernel_params", kernel_params.clone()),
            ("warmup", format!("{warmup:?}")),
            ("verify", format!("{verify:?}")),
        ]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{Accel, HostCpu, MachineType};

    pub(crate) fn recipe() -> Recipe {
        Recipe {
            qemu_version: "10.0.2".into(),
            qemu_digest: "blake3:aa".into(),
            accel: Accel::Tcg,
            host_cpu: HostCpu {
                family: "25".into(),
                ..HostCpu::default()
            },
            machine: MachineType::Q35,
            devices: 2,
            cpu: "max".into(),
            vcpus: 1,
            max_vcpus: 4,
            memory_mib: 256,
            max_memory_mib: 2048,
            vsock: false,
            kernel: "blake3:bb".into(),
            initrd: "blake3:cc".into(),
            kernel_params: "quiet".into(),
            warmup: vec![],
            verify: vec![],
        }
    }

    #[test]
    fn a_recipe_does_not_differ_from_itself() {
        assert!(recipe().differences(&recipe()).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_not_what_differs() {
        let unverified = || UnverifiedField {
            field: "kernel".to_owned(),
            reason: "/boot/vmlinuz cannot be read: gone".to_owned(),
        };
        let now = Recipe {
            kernel: String::new(),
            ..recipe()
        };
        let alone = RecipeNow::new(now.clone(), vec![unverified()]).compare(&recipe());
        assert_eq!(alone.differing, []);
        assert_eq!(alone.unverified, [unverified()]);
        let larger = Recipe {
            memory_mib: 512,
            ..now
        };
        let both = RecipeNow::new(larger, vec![unverified()]).compare(&recipe());
        let fields: Vec<_> = both.differing.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["memory_mib"], "what is known to differ, differs");
        assert_eq!(both.unverified, [unverified()]);
    }

    #[test]
    fn each_difference_is_named_with_both_values() {
        let now = Recipe {
            qemu_version: "10.1.0".into(),
            memory_mib: 512,
            ..recipe()
        };
        let fields = recipe().differences(&now);
        let names: Vec<_> = fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(names, ["qemu_version", "memory_mib"]);
        assert_eq!(
            (fields[1].built_with.as_str(), fields[1].now.as_str()),
            ("256", "512")
        );
    }
}
