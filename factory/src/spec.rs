//! What the factory is asked for: the host's settings and the description of a template.
//!
//! These are *requests*, already checked for form by whoever made them; whether this host can fulfil them is
//! found out by [`crate::Factory::open`] and [`crate::Factory::build`].

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A program and its arguments.
pub type Argv = Vec<String>;

/// What runs the virtual CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor itself, through the kernel.
    Kvm,
    /// QEMU's own translation: works everywhere, slower.
    Tcg,
}

impl Accel {
    /// The name in QEMU's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Which accelerator the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelChoice {
    /// KVM where a real boot has proved it, else TCG.
    Auto,
    /// KVM or an error.
    Kvm,
    /// TCG.
    Tcg,
}

/// The emulated board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineType {
    /// PCI Express, ACPI, VM generation id.
    Q35,
    /// Minimal. It has no VM generation id, so its guest must have our own agent, and no hotplug.
    Microvm,
}

impl MachineType {
    /// The name in QEMU's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Microvm => "microvm",
        }
    }
}

/// Where and as whom the factory works.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Sockets, consoles and records of the virtual machines.
    pub run_dir: PathBuf,
    /// Generations: a tmpfs, mounted there by root when it is none.
    pub template_path: PathBuf,
    /// The hypervisor: a path, or a name looked up in `PATH`.
    pub qemu: PathBuf,
    /// As root, the user that QEMU runs as; `None` for a plain user, who stays who they are.
    pub qemu_user: Option<String>,
    /// As root, the user of the QEMU that builds a template: another one than `qemu_user`.
    pub build_user: Option<String>,
    /// Which accelerator.
    pub accel: AccelChoice,
    /// Whether clones may have a network of QEMU's own, which lets QEMU open TCP connections with its user's rights.
    pub user_networks: bool,
}

/// The description of one template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Its name: also the name of its directory.
    pub name: String,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// The guest's initial RAM disk.
    pub initrd: PathBuf,
    /// Kernel parameters, appended to the built-in ones.
    pub kernel_params: String,
    /// The board.
    pub machine: MachineType,
    /// The CPU model; `None` is `host` under KVM and `max` under TCG.
    pub cpu: Option<String>,
    /// Virtual CPUs at boot.
    pub vcpus: u32,
    /// Virtual CPUs that hotplug can reach.
    pub max_vcpus: u32,
    /// Memory at boot, MiB.
    pub memory_mib: u64,
    /// Memory that hotplug can reach, MiB.
    pub max_memory_mib: u64,
    /// Whether each clone has an address on AF_VSOCK.
    pub vsock: bool,
    /// How long the guest may take to answer after its boot.
    pub ready_timeout: Duration,
    /// How much of the console is kept, bytes.
    pub console_max_bytes: u64,
    /// Commands run in the template before it is saved.
    pub warmup: Vec<Argv>,
    /// Commands that must exit with 0 in the canaries.
    pub verify: Vec<Argv>,
    /// Generations that stay on disk: the current one and earlier ones to go back to. At least one.
    pub keep_generations: u32,
}

impl TemplateSpec {
    /// A small machine that boots this guest: one virtual CPU and 256 MiB, which cannot grow. Every field may be set.
    #[must_use]
    pub fn new(name: &str, kernel: PathBuf, initrd: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            kernel,
            initrd,
            kernel_params: String::new(),
            machine: MachineType::Q35,
            cpu: None,
            vcpus: 1,
            max_vcpus: 1,
            memory_mib: 256,
            max_memory_mib: 256,
            vsock: false,
            ready_timeout: Duration::from_secs(120),
            console_max_bytes: 1 << 20,
            warmup: Vec::new(),
            verify: Vec::new(),
            keep_generations: 2,
        }
    }
}
