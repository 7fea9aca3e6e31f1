//! The host: who we are on it, what it has, what of it we hold.
//!
//! ```text
//!  user.rs    the users that hypervisors run as
//!  directory.rs  opening a directory that nobody else can swap
//!  lock.rs    one service for a run directory and for a template path
//!  place.rs   those two directories, kept while others remove them
//!  tmpfs.rs   the file system of the generations
//!  cpu.rs     the processor that saved states depend on
//!  accel.rs   whether KVM really works, and the memory of that
//!  open.rs    all of it together, in the one order that works
//!  clean.rs   `vmint clean`: the way back
//!  doctor.rs  `vmint doctor`: the same questions, with mends for answers
//! ```

mod accel;
mod clean;
mod cpu;
mod directory;
mod doctor;
mod lock;
mod open;
mod place;
mod tmpfs;
mod user;
mod vsock;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use accel::AccelError;
pub use clean::{CleanError, CleanReport, clean};
pub use cpu::HostCpu;
pub(crate) use directory::FileId;
pub use doctor::{Check, Verdict, doctor};
pub use lock::LockError;
pub(crate) use lock::holder_of;
pub use open::OpenError;
pub(crate) use open::open;
pub(crate) use place::Place;
pub use place::PlaceError;
pub use tmpfs::TmpfsError;
pub(crate) use tmpfs::passable_mode;
pub(crate) use user::HypervisorUsers;
pub use user::UserError;
pub use vsock::vsock_refusal;
pub(crate) use vsock::{Cids, DEVICE as VSOCK_DEVICE, Vsock};

use crate::aside::aside;
use crate::driver::Driver;
use crate::memory::Digests;
use crate::qemu::{ProbeError, Qemu};
use crate::size::reachable_memory_mib;
use crate::template::{
    GenerationFiles, Owners, Platform, Recipe, RecipeNow, Registry, Store, UnverifiedField,
};
use crate::vm::Orphan;
use crate::{Accel, MachineType, TemplateSpec};

/// What boots a guest quickly and keeps it quiet; a template's own parameters come after them. Mitigations of the
/// processor's faults stay as the kernel sets them: strangers' code runs in these guests.
const KERNEL_PARAMS: &str = "console=ttyS0 quiet panic=1 reboot=k tsc=reliable no_timer_check \
     rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 noreplace-smp \
     cryptomgr.notests net.ifnames=0 pci=lastbus=0";
/// Room to plug memory in makes the kernel set 64 MiB aside, a quarter of a small guest, for devices that cannot reach
/// memory above 4 GiB. All of these can.
const Q35_PARAMS: &str = "swiotlb=noforce";
/// Without a hypervisor that tells, each CPU that is plugged in counts loops against a clock that stands still while
/// the host does something else, for a third of a second. The number fits a clock of 2.5 GHz and a tick of 250 Hz; what
/// hangs on it is how long a driver waits for a device, and emulated devices do not need the wait.
const TCG_PARAMS: &str = "lpj=10000000";

/// A host that was examined, and the locks on our part of it.
pub(crate) struct Host {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) run_dir: PathBuf,
    pub(crate) template_path: PathBuf,
    pub(crate) accel: Accel,
    pub(crate) accel_reason: String,
    pub(crate) qemu: Arc<Qemu>,
    pub(crate) users: Option<HypervisorUsers>,
    pub(crate) cpu: HostCpu,
    pub(crate) digests: Arc<Digests>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) cids: Cids,
    /// What an earlier service has left and nobody has asked for yet.
    pub(crate) orphans: Mutex<Vec<Orphaned>>,
    /// Locked: nobody else works in them.
    pub(crate) places: Arc<Places>,
}

/// The directories of this service.
#[derive(Debug)]
pub(crate) struct Places {
    /// Shared with the machines, which write their records again where they are lost.
    pub(crate) run: Arc<Place>,
    pub(crate) templates: Place,
}

impl Places {
    /// Looks after both: what was removed is made again. It blocks for a few `lstat`s.
    ///
    /// # Errors
    /// See [`PlaceError`]; the other one is looked after all the same.
    pub(crate) fn keep(&self) -> Result<(), PlaceError> {
        let (run, templates) = (self.run.keep(), self.templates.keep());
        run.and(templates)
    }
}

impl Host {
    /// The users that hypervisors run as: clones', and builds'.
    pub(crate) fn hypervisor_uids(&self) -> [u32; 2] {
        user::hypervisor_uids(self.users.as_ref())
    }

    /// The generations of a template.
    pub(crate) fn store(&self, template: &str) -> Store {
        Store::new(
            &self.template_path,
            template,
            self.users.as_ref().map(Owners::of),
        )
    }

    /// What a template would be built with here and now.
    pub(crate) fn recipe_of(&self, spec: &TemplateSpec, programs: ProgramDigests) -> Recipe {
        let ProgramDigests {
            qemu,
            kernel,
            initrd,
        } = programs;
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
            qemu_version: self.qemu.found().version.to_string(),
            qemu_digest: qemu,
            accel: self.accel,
            host_cpu: self.cpu.clone(),
            machine: spec.machine,
            devices: crate::qemu::DEVICES,
            cpu: cpu_of(spec, self.accel),
            vcpus: spec.vcpus,
            max_vcpus,
            memory_mib: spec.memory_mib,
            max_memory_mib,
            vsock: spec.vsock,
            kernel,
            initrd,
            kernel_params: kernel_params(spec, self.accel),
            warmup: spec.warmup.clone(),
            verify: spec.verify.clone(),
        }
    }
}

impl Host {
    /// What a saved state depends on here and now. It reads no file that has not changed, and blocks where one has.
    pub(crate) fn platform(&self) -> Platform {
        let qemu = self.qemu.found();
        Platform {
            qemu_version: qemu.version.to_string(),
            qemu_digest: self.digest_of(&qemu.path),
            accel: self.accel,
            cpu: self.cpu.clone(),
            devices: crate::qemu::DEVICES,
        }
    }

    /// What a template would be built with here and now. Fields whose files cannot be read are unverified. It blocks where
    /// a file has changed.
    pub(crate) fn recipe_now(&self, spec: &TemplateSpec) -> RecipeNow {
        let mut unverified = Vec::new();
        let mut digest = |field: &str, path: &Path| {
            let reason = match self.digest_of(path) {
                Ok(digest) => return digest,
                Err(reason) => reason,
            };
            let field = field.to_owned();
            unverified.push(UnverifiedField { field, reason });
            String::new()
        };
        let programs = ProgramDigests {
            qemu: digest("qemu_digest", &self.qemu.found().path),
            kernel: digest("kernel", &spec.kernel),
            initrd: digest("initrd", &spec.initrd),
        };
        RecipeNow::new(self.recipe_of(spec, programs), unverified)
    }

    /// The digest of a file; else, in words, why it cannot be told.
    fn digest_of(&self, path: &Path) -> Result<String, String> {
        let digest = self.digests.of(path);
        digest.map_err(|error| format!("{} cannot be read: {error}", path.display()))
    }

    /// Looks whether the hypervisor's program is still the one that was examined, and examines it anew when it is
    /// not.
    ///
    /// # Errors
    /// When the new one does not work.
    pub(crate) async fn renew_hypervisor(self: &Arc<Self>) -> Result<(), ProbeError> {
        let (host, known) = (Arc::clone(self), self.qemu.found());
        let path = known.path.clone();
        let digest = aside(move || host.digest_of(&path)).await;
        if digest.is_ok_and(|digest| digest == known.digest) {
            return Ok(());
        }
        self.qemu.examine_again().await?;
        let version = self.qemu.found().version.to_string();
        tracing::info!(version, was = %known.version, "the hypervisor's program has changed");
        Ok(())
    }
}

/// The digests of the programs that a template is made of.
pub(crate) struct ProgramDigests {
    /// The hypervisor's program.
    pub(crate) qemu: String,
    pub(crate) kernel: String,
    pub(crate) initrd: String,
}

/// A clone that outlived its service, with its generation's files, which stay as long as it may be taken up.
pub(crate) struct Orphaned {
    pub(crate) orphan: Orphan,
    /// Held, not used.
    pub(crate) _files: Arc<GenerationFiles>,
}

/// The CPU model of a template: its own, or the best that the accelerator has.
fn cpu_of(spec: &TemplateSpec, accel: Accel) -> String {
    match (&spec.cpu, accel) {
        (Some(cpu), _) => cpu.clone(),
        (None, Accel::Kvm) => "host".to_owned(),
        (None, Accel::Tcg) => "max".to_owned(),
    }
}

fn kernel_params(spec: &TemplateSpec, accel: Accel) -> String {
    let board = match spec.machine {
        MachineType::Q35 => Q35_PARAMS,
        MachineType::Microvm => "",
    };
    let emulated = match accel {
        Accel::Tcg => TCG_PARAMS,
        Accel::Kvm => "",
    };
    // The template's own come last: what is said twice is what was said last.
    let parts = [KERNEL_PARAMS, board, emulated, &spec.kernel_params];
    let said: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    said.join(" ")
}
