//! Makes virtual machines: one *generation* of a template, and any number of copy-on-write *clones* of it.
//!
//! This crate owns everything that touches a hypervisor. It knows nothing of pools, leases, HTTP, the configuration
//! file or the metrics exporter: see `ARCHITECTURE.md` for the rules that hold between the crates.
//!
//! Start at [`Factory`]: [`Factory::open`] examines the host and takes the locks, [`Factory::build`] makes a
//! [`Generation`], [`Factory::mint`] makes a [`Vm`] from it.

mod id;
mod phases;
mod spec;

pub use id::{GenerationId, VmId};
pub use phases::{Phase, Phases};
pub use spec::{Accel, AccelChoice, Argv, HostSettings, MachineType, TemplateSpec};
