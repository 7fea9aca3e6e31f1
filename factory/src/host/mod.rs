//! The host: who we are on it, what it has, what of it we hold.
//!
//! ```text
//!  user.rs    the user that the hypervisor runs as
//!  lock.rs    one service for a run directory and for a template path
//!  tmpfs.rs   the file system of the generations
//!  accel.rs   whether KVM really works, and the memory of that
//!  open.rs    all of it together, in the one order that works
//!  clean.rs   `vmint clean`: the way back
//!  doctor.rs  `vmint doctor`: the same questions, with mends for answers
//! ```

mod accel;
mod clean;
mod doctor;
mod lock;
mod open;
mod tmpfs;
mod user;

use std::path::PathBuf;
use std::sync::Arc;

pub use accel::AccelError;
pub use clean::{CleanError, CleanReport, clean};
pub use doctor::{Check, Verdict, doctor};
pub use lock::LockError;
pub use open::OpenError;
pub(crate) use open::open;
pub use tmpfs::TmpfsError;
pub use user::UserError;

use crate::driver::Driver;
use crate::size::reachable_memory_mib;
use crate::sys::Credentials;
use crate::template::{Recipe, Store};
use crate::{Accel, MachineType, TemplateSpec};

/// What boots a guest quickly and keeps it quiet; a template's own parameters come after them. Mitigations of the
/// processor's faults stay as the kernel sets them: strangers' code runs in these guests.
const KERNEL_PARAMS: &str = "console=ttyS0 quiet panic=1 reboot=k tsc=reliable no_timer_check \
     rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 noreplace-smp \
     cryptomgr.notests net.ifnames=0 pci=lastbus=0";

/// A host that was examined, and the locks on our part of it.
pub(crate) struct Host {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) run_dir: PathBuf,
    pub(crate) template_path: PathBuf,
    pub(crate) accel: Accel,
    pub(crate) accel_reason: String,
    pub(crate) qemu: crate::qemu::Found,
    pub(crate) user: Option<Credentials>,
    pub(crate) cpu_model: String,
    /// Held, not used: nobody else works in these directories as long as they exist.
    _locks: Vec<lock::Lock>,
}

impl Host {
    /// The generations of a template.
    pub(crate) fn store(&self, template: &str) -> Store {
        Store::new(
            &self.template_path,
            template,
            self.user.as_ref().map(|user| user.gid),
        )
    }

    /// What a template would be built with here and now.
    pub(crate) fn recipe_of(&self, spec: &TemplateSpec, kernel: String, initrd: String) -> Recipe {
        let can = self.driver.capabilities(spec.machine);
        // What cannot be plugged in has no maximum: a machine without hotplug is not stale because of one.
        let max_vcpus = if can.cpu_hotplug {
            spec.max_vcpus
        } else {
            spec.vcpus
        };
        let max_memory_mib = if can.memory_hotplug {
            reachable_memory_mib(spec.memory_mib, spec.max_memory_mib)
        } else {
            spec.memory_mib
        };
        Recipe {
            qemu_version: self.qemu.version.to_string(),
            qemu_digest: self.qemu.digest.clone(),
            accel: self.accel,
            host_cpu: self.cpu_model.clone(),
            machine: spec.machine,
            cpu: cpu_of(spec, self.accel),
            vcpus: spec.vcpus,
            max_vcpus,
            memory_mib: spec.memory_mib,
            max_memory_mib,
            kernel,
            initrd,
            kernel_params: kernel_params(spec),
            warmup: spec.warmup.clone(),
            verify: spec.verify.clone(),
        }
    }
}

/// The CPU model of a template: its own, or the best that the accelerator has.
fn cpu_of(spec: &TemplateSpec, accel: Accel) -> String {
    match (&spec.cpu, accel) {
        (Some(cpu), _) => cpu.clone(),
        (None, Accel::Kvm) => "host".to_owned(),
        (None, Accel::Tcg) => "max".to_owned(),
    }
}

fn kernel_params(spec: &TemplateSpec) -> String {
    let board = match spec.machine {
        MachineType::Q35 | MachineType::Microvm => KERNEL_PARAMS,
    };
    if spec.kernel_params.is_empty() {
        board.to_owned()
    } else {
        format!("{board} {}", spec.kernel_params)
    }
}
