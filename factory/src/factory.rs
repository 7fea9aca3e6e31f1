//! The front of the crate.

use std::path::PathBuf;
use std::sync::Arc;

use crate::aside::aside;
use crate::clone::{self, CloneError, CloneOrder, Vm};
use crate::device::{Caller, DeviceError, DeviceSpecs, NicSpec, OpenDevices, open_devices};
use crate::host::{self, Host, OpenError};
use crate::template::{self, BuildError, BuildProgress, FindError, ForgetError, Found, Generation};
use crate::{Accel, GenerationId, HostSettings, TemplateSpec};

/// Makes generations and clones on this host. Cheap to clone; the host's locks are held until the last one is gone.
#[derive(Clone)]
pub struct Factory {
    host: Arc<Host>,
    info: Arc<HostInfo>,
}

/// What was found on this host.
#[derive(Clone, Debug)]
pub struct HostInfo {
    /// The hypervisor's program.
    pub qemu_path: PathBuf,
    /// Its version.
    pub qemu_version: String,
    /// What runs the virtual CPUs.
    pub accel: Accel,
    /// Why this and not the other.
    pub accel_reason: String,
    /// Processors: more clones than these at once only make each of them late.
    pub cpus: usize,
    /// Where machines have their directories.
    pub run_dir: PathBuf,
    /// Where generations are.
    pub template_path: PathBuf,
}

impl Factory {
    /// Takes the locks, ends what an earlier service left, probes the hypervisor, and proves the accelerator with a
    /// boot of `probe_guest` where that is needed.
    ///
    /// # Errors
    /// See [`OpenError`]: each names the mend.
    ///
    /// # Cancel safety
    /// A dropped call gives the locks back; a mounted tmpfs stays.
    pub async fn open(
        settings: HostSettings,
        probe_guest: &TemplateSpec,
    ) -> Result<Self, OpenError> {
        let host = host::open(&settings, probe_guest).await?;
        let info = HostInfo {
            qemu_path: host.qemu.path.clone(),
            qemu_version: host.qemu.version.to_string(),
            accel: host.accel,
            accel_reason: host.accel_reason.clone(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            run_dir: host.run_dir.clone(),
            template_path: host.template_path.clone(),
        };
        Ok(Self {
            host: Arc::new(host),
            info: Arc::new(info),
        })
    }

    /// What was found on this host.
    #[must_use]
    pub fn host(&self) -> &HostInfo {
        &self.info
    }

    /// Takes up the generation that is on disk, when it is whole and what is wanted. Other generations of the
    /// template are removed: call it only before any clone of the template was made.
    ///
    /// # Errors
    /// See [`FindError`].
    ///
    /// # Cancel safety
    /// A dropped call ends by itself.
    pub async fn find(&self, spec: &TemplateSpec) -> Result<Found, FindError> {
        let (host, spec) = (Arc::clone(&self.host), spec.clone());
        aside(move || template::find(&host, &spec)).await
    }

    /// Builds, verifies and publishes a new generation. The one before it stays until it is retired.
    ///
    /// # Errors
    /// See [`BuildError`]; nothing is left of a failed build.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing.
    pub async fn build(
        &self,
        spec: &TemplateSpec,
        progress: BuildProgress,
    ) -> Result<Arc<Generation>, BuildError> {
        template::build(&self.host, spec, &progress)
            .await
            .map(Arc::new)
    }

    /// Removes a template that is no more: none of its generations is the current one, and those that are not `in_use`
    /// go at once. The others go with their last holders, once they are retired.
    ///
    /// # Errors
    /// See [`ForgetError`]; part of it may be gone.
    ///
    /// # Cancel safety
    /// A dropped call ends by itself.
    pub async fn forget(
        &self,
        template: &str,
        in_use: Vec<GenerationId>,
    ) -> Result<(), ForgetError> {
        let (store, template) = (self.host.store(template), template.to_owned());
        aside(move || template::forget(&store, &template, &in_use)).await
    }

    /// Opens devices of the host that a clone is to have, with the rights of whoever asks for them.
    ///
    /// # Errors
    /// See [`DeviceError`]; nothing stays open.
    ///
    /// # Cancel safety
    /// A dropped call opens what it had begun to, and closes it again.
    pub async fn open_devices(
        &self,
        specs: DeviceSpecs,
        caller: Caller,
    ) -> Result<OpenDevices, DeviceError> {
        if specs.nics.contains(&NicSpec::User) && !self.host.qemu.has_user_network {
            return Err(DeviceError::NoUserNetwork);
        }
        open_devices(specs, caller).await
    }

    /// Makes a clone that can be handed out: its guest has answered and has an identity of its own.
    ///
    /// # Errors
    /// See [`CloneError`]; nothing is left of a failed clone.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing.
    pub async fn mint(
        &self,
        generation: &Arc<Generation>,
        order: CloneOrder,
    ) -> Result<Arc<Vm>, CloneError> {
        clone::mint(&self.host, generation, order)
            .await
            .map(Arc::new)
    }
}

impl std::fmt::Debug for Factory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Factory").field("host", &self.info).finish()
    }
}
