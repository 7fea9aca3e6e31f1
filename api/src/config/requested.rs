//! The configuration as it was read: the right keys with the right types, nothing else is known about it yet.

use std::collections::BTreeMap;

use serde::Deserialize;
use vmint_factory::Argv;

/// The whole file, default values filled in.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Requested {
    pub(crate) server: Server,
    pub(crate) host: Host,
    pub(crate) templates: BTreeMap<String, Template>,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Server {
    pub(crate) listen: String,
    pub(crate) socket: String,
    pub(crate) socket_mode: String,
    pub(crate) socket_group: String,
}

/// `[host]`
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Host {
    pub(crate) run_dir: String,
    pub(crate) template_path: String,
    pub(crate) qemu: String,
    pub(crate) qemu_user: String,
    pub(crate) build_user: String,
    pub(crate) accel: String,
    pub(crate) max_ttl: String,
    pub(crate) memory_share: f64,
}

/// `[templates.NAME]`
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Template {
    pub(crate) kernel: String,
    pub(crate) initrd: String,
    pub(crate) kernel_params: String,
    pub(crate) machine: String,
    pub(crate) cpu: String,
    pub(crate) vcpus: i64,
    pub(crate) max_vcpus: i64,
    pub(crate) memory: String,
    pub(crate) max_memory: String,
    pub(crate) ready_timeout: String,
    pub(crate) guest_timeout: String,
    pub(crate) console_max: String,
    pub(crate) warmup: Vec<Argv>,
    pub(crate) verify: Vec<Argv>,
    pub(crate) on_stale: String,
    pub(crate) keep_generations: i64,
    pub(crate) vsock: bool,
    pub(crate) pool: Pool,
}

/// `[templates.NAME.pool]`
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pool {
    pub(crate) target: i64,
    pub(crate) max: i64,
    pub(crate) refill: i64,
    pub(crate) standby: String,
    pub(crate) on_clone: Vec<Argv>,
    pub(crate) max_age: String,
    pub(crate) ttl: String,
    pub(crate) queue: i64,
}
