//! Sandboxes: leased clones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmint_cache::{AttachedDisk, AttachedNic, SandboxView};
use vmint_factory::{Confinement, NicSpec, Phases};

use super::time::{ms, shown};

/// One leased sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sandbox {
    /// Its id.
    #[schema(example = "bcdfghjkmnpq")]
    pub id: String,
    /// The host's user that it belongs to.
    #[schema(example = 0)]
    pub owner_uid: u32,
    /// The template it is a clone of.
    #[schema(example = "default")]
    pub template: String,
    /// The generation of that template.
    #[schema(example = "20250102-030405-bcdf")]
    pub generation: String,
    /// Always `leased`.
    #[schema(example = "leased")]
    pub state: String,
    /// `pool`, or `clone` when it was made for the request.
    #[schema(example = "pool", pattern = "^(pool|clone)$")]
    pub source: String,
    /// Virtual CPUs, those included that were plugged in for it.
    #[schema(example = 1)]
    pub vcpus: u32,
    /// Memory, MiB, likewise.
    #[schema(example = 256)]
    pub memory_mib: u64,
    /// Its address on AF_VSOCK; only there where the template has `vsock`.
    #[schema(example = 70000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_cid: Option<u32>,
    /// The hypervisor's process.
    pub pid: u32,
    /// The guest's name.
    #[schema(example = "job-17")]
    pub hostname: String,
    /// The guest's machine id.
    #[schema(example = "5bd3cb4d0ea8446cb9bd3f5e6f0c1a2b")]
    pub machine_id: String,
    /// Sockets of the host that lead to it.
    pub sockets: Sockets,
    /// When the clone was made, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// When it was leased, RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub leased_at: jiff::Timestamp,
    /// When the lease ends and the sandbox with it, RFC 3339; null = not before its release.
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// How long the checkout took in the service, milliseconds.
    #[schema(example = 0.042)]
    pub checkout_ms: f64,
    /// How long the start of the clone took, by phase, milliseconds.
    pub startup_ms: StartupMs,
    /// What came with the checkout.
    pub metadata: BTreeMap<String, String>,
    /// The network interfaces that it was given, in the order of the checkout.
    pub nics: Vec<SandboxNic>,
    /// The disks that it was given, in the order of the checkout.
    pub disks: Vec<SandboxDisk>,
    /// What keeps its hypervisor from the rest of the host, and what does not. Empty where it was made by a version that did
    /// not record it.
    pub confinement: Vec<SandboxConfinement>,
    /// `current`, or `outdated`: its guest is of another version that this one cannot talk to. Such a sandbox can be looked at,
    /// renewed and released, and nothing else.
    #[schema(example = "current", pattern = "^(current|outdated)$")]
    pub agent: String,
    /// Whether its guest has not answered for `guest_timeout`: after as long again it is ended.
    pub unresponsive: bool,
    /// How long ago its guest was heard from, milliseconds; null when it has not been since the service was started.
    #[schema(required = true, example = 812.5)]
    pub last_seen_ms: Option<f64>,
}

/// One of the things that confine a hypervisor, and whether it does.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SandboxConfinement {
    /// `landlock`, `seccomp`, `user` or `no_new_privs`.
    #[schema(example = "landlock")]
    pub name: String,
    /// Whether it is in force.
    pub on: bool,
    /// What it forbids; where it is off, why.
    #[schema(
        example = "ABI 7: files, other processes' memory, truncation of files, TCP ports, signals and abstract sockets"
    )]
    pub reason: String,
}

/// A network interface of a sandbox: at a tap, or at the hypervisor's own network.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SandboxNic {
    /// Its address.
    #[schema(example = "02:1f:7c:00:5a:91")]
    pub mac: String,
    /// The tap of the host, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "tap0")]
    pub tap: Option<String>,
    /// `true` where it is the hypervisor's own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<bool>,
    /// Its name in the guest.
    #[schema(example = "eth0")]
    pub name: String,
}

/// A disk of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SandboxDisk {
    /// Its serial in the guest.
    #[schema(example = "bcdfghjkmnpq-0")]
    pub serial: String,
    /// The file or block device of the host.
    #[schema(example = "/var/lib/images/data.img")]
    pub path: String,
    /// How its content is read.
    #[schema(example = "raw", pattern = "^(raw|qcow2)$")]
    pub format: String,
    /// Whether the guest cannot write to it.
    pub read_only: bool,
    /// Its name in the guest, without `/dev/`.
    #[schema(example = "vda")]
    pub name: String,
}

/// Sockets of a sandbox. They belong to the user who checked it out over the Unix socket, else to the service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sockets {
    /// Its serial console.
    #[schema(example = "/run/vmint/vm/bcdfghjkmnpq/console.sock")]
    pub console: String,
    /// The port `vmint.runtime.0` of the guest.
    #[schema(example = "/run/vmint/vm/bcdfghjkmnpq/runtime.sock")]
    pub runtime: String,
}

/// A start by phase, milliseconds; a phase that did not happen is 0.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct StartupMs {
    /// The hypervisor's process.
    pub spawn: f64,
    /// Its monitor answers.
    pub qmp: f64,
    /// The saved state is loaded.
    pub load: f64,
    /// The virtual CPUs run.
    pub resume: f64,
    /// The guest answers.
    pub agent: f64,
    /// The guest has an identity of its own.
    pub identity: f64,
    /// The commands of `on_clone` have run.
    pub warmup: f64,
    /// All of it.
    pub total: f64,
}

/// Leased sandboxes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SandboxList {
    /// Those that match.
    pub sandboxes: Vec<Sandbox>,
}

impl From<SandboxView> for Sandbox {
    fn from(view: SandboxView) -> Self {
        Self {
            id: view.id,
            owner_uid: view.owner_uid,
            template: view.template,
            generation: view.generation,
            state: view.state.to_owned(),
            source: view.source.as_str().to_owned(),
            vcpus: view.vcpus,
            memory_mib: view.memory_mib,
            vsock_cid: view.vsock_cid,
            pid: view.pid,
            hostname: view.hostname,
            machine_id: view.machine_id,
            sockets: Sockets {
                console: view.console_socket.display().to_string(),
                runtime: view.runtime_socket.display().to_string(),
            },
            created_at: shown(view.created_at),
            leased_at: shown(view.leased_at),
            expires_at: view.expires_at.map(shown),
            checkout_ms: ms(view.checkout),
            startup_ms: StartupMs::from(view.startup),
            metadata: view.metadata,
            nics: view
                .devices
                .nics
                .into_iter()
                .map(SandboxNic::from)
                .collect(),
            disks: view
                .devices
                .disks
                .into_iter()
                .map(SandboxDisk::from)
                .collect(),
            confinement: view
                .confinement
                .iter()
                .map(SandboxConfinement::from)
                .collect(),
            agent: view.agent.as_str().to_owned(),
            unresponsive: view.unresponsive,
            last_seen_ms: view.last_seen.map(ms),
        }
    }
}

impl From<&Confinement> for SandboxConfinement {
    fn from(one: &Confinement) -> Self {
        Self {
            name: one.name.clone(),
            on: one.on,
            reason: one.reason.clone(),
        }
    }
}

impl From<AttachedNic> for SandboxNic {
    fn from(nic: AttachedNic) -> Self {
        let (tap, user) = match nic.spec {
            NicSpec::Tap(name) => (Some(name), None),
            NicSpec::User => (None, Some(true)),
        };
        Self {
            mac: nic.mac,
            tap,
            user,
            name: nic.name,
        }
    }
}

impl From<AttachedDisk> for SandboxDisk {
    fn from(disk: AttachedDisk) -> Self {
        Self {
            serial: disk.serial,
            path: disk.spec.path.display().to_string(),
            format: disk.spec.format.as_str().to_owned(),
            read_only: disk.spec.read_only,
            name: disk.name,
        }
    }
}

impl From<Phases> for StartupMs {
    fn from(phases: Phases) -> Self {
        Self {
            spawn: ms(phases.spawn),
            qmp: ms(phases.qmp),
            load: ms(phases.load),
            resume: ms(phases.resume),
            agent: ms(phases.agent),
            identity: ms(phases.identity),
            warmup: ms(phases.warmup),
            total: ms(phases.total),
        }
    }
}
