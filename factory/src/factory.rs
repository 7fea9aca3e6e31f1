//! The front of the crate.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::aside::aside;
use crate::clone::{self, Adopted, CloneError, CloneOrder, Vm};
use crate::device::{Caller, DeviceError, DeviceSpecs, NicSpec, OpenDevices, open_devices};
use crate::guard::Guardian;
use crate::host::{self, Host, OpenError, PlaceError};
use crate::template::{
    self, BuildError, BuildProgress, FindError, ForgetError, Found, Generation, ListedGeneration,
    RollbackError, Staleness,
};
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
    /// The users that hypervisors run as: clones', and builds'.
    pub hypervisor_uids: [u32; 2],
}

impl Factory {
    /// Takes the locks, ends what an earlier service left and nobody can take up again, probes the hypervisor, and proves the accelerator with a
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
            qemu_path: host.qemu.found().path,
            qemu_version: host.qemu.found().version.to_string(),
            accel: host.accel,
            accel_reason: host.accel_reason.clone(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            run_dir: host.run_dir.clone(),
            template_path: host.template_path.clone(),
            hypervisor_uids: host.hypervisor_uids(),
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

    /// Looks after the run directory and the template path, which others may remove at any time: one that is gone is made
    /// again and locked. To be called every few seconds.
    ///
    /// # Errors
    /// When one cannot be made, or another service has it by now: see [`PlaceError::is_anothers`].
    ///
    /// # Cancel safety
    /// A dropped call ends by itself.
    pub async fn keep_places(&self) -> Result<(), PlaceError> {
        let places = Arc::clone(&self.host.places);
        aside(move || places.keep()).await
    }

    /// Starts the lease guardian: `program` with `args` must call [`crate::guard_leases`] on the run directory, as
    /// `vmint guard-leases` does. It outlives this process when that is killed, and ends by itself. To be called once,
    /// within a runtime, as soon as the factory is open.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_guardian(&self, program: PathBuf, args: Vec<OsString>) -> io::Result<Guardian> {
        Guardian::start(&self.host.places.run, program, args)
    }

    /// Takes up the clones that an earlier service has left: those whose template is among `specs`, whose generation
    /// is whole, whose monitor answers, and whose right to TCP is that of a new one; a leased one whatever has become of its template, or of its generation's files
    /// as long as the manifest says what they were. What else there was is ended, and what other templates have on disk is removed,
    /// each with a line in the log. Until this is called all stays as it is, and a factory that is dropped leaves it to
    /// the next one. Called again it finds nothing.
    ///
    /// # Cancel safety
    /// A dropped call ends the clones that it has begun with; the others stay as they are.
    pub async fn adopt(&self, specs: &[TemplateSpec]) -> Vec<Adopted> {
        let adopted = clone::adopt(&self.host, specs).await;
        let (host, specs) = (Arc::clone(&self.host), specs.to_vec());
        aside(move || template::forget_others(&host, &specs)).await;
        adopted
    }

    /// Takes up the current generation that is on disk, when it is whole and what is wanted. Those beyond
    /// [`TemplateSpec::keep_generations`] that no clone uses are removed.
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

    /// The generations of a template that are on disk, the newest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    ///
    /// # Cancel safety
    /// A dropped call ends by itself.
    pub async fn generations(&self, spec: &TemplateSpec) -> io::Result<Vec<ListedGeneration>> {
        let (host, spec) = (Arc::clone(&self.host), spec.clone());
        aside(move || template::list(&host, &spec)).await
    }

    /// Makes the newest earlier generation the current one, when it is whole and this host can restore it. Clones of
    /// the one before live on; it stays on disk until a build has put another in its place.
    ///
    /// # Errors
    /// See [`RollbackError`].
    ///
    /// # Cancel safety
    /// A dropped call ends by itself, and may have rolled back.
    pub async fn rollback(&self, spec: &TemplateSpec) -> Result<Arc<Generation>, RollbackError> {
        let (host, spec) = (Arc::clone(&self.host), spec.clone());
        aside(move || template::rollback(&host, &spec).map(Arc::new)).await
    }

    /// Removes a generation that is only kept to go back to. Returns whether it is gone: not where it is the current one,
    /// or in use. Its memory is free then.
    ///
    /// # Errors
    /// When its files cannot be removed, or the link to the current one cannot be read.
    ///
    /// # Cancel safety
    /// A dropped call ends by itself, and may have done it.
    pub async fn drop_kept(&self, template: &str, generation: &GenerationId) -> io::Result<bool> {
        let (host, generation) = (Arc::clone(&self.host), generation.clone());
        let store = host.store(template);
        aside(move || template::drop_kept(&store, &generation, &host.registry)).await
    }

    /// Gives up a generation of which clones cannot be made, though it was verified: makes `back_to` the current one again,
    /// of which clones live. The other one goes with its last clone, and is not gone back to.
    ///
    /// # Errors
    /// When `back_to` is not on disk, or the link to it cannot be changed.
    ///
    /// # Cancel safety
    /// A dropped call ends by itself, and may have done it.
    pub async fn give_up(
        &self,
        spec: &TemplateSpec,
        given_up: &GenerationId,
        back_to: &GenerationId,
    ) -> io::Result<()> {
        let (host, spec) = (Arc::clone(&self.host), spec.clone());
        let (given_up, back_to) = (given_up.clone(), back_to.clone());
        aside(move || template::give_up(&host, &spec, &given_up, &back_to)).await
    }

    /// In what a generation differs from what would be built now: its description, the kernel, the initial RAM disk,
    /// the hypervisor's program, the processor; and what of that cannot be compared at present. Cheap enough to be asked
    /// every few seconds: a file is read only when it has changed.
    ///
    /// # Cancel safety
    /// A dropped call ends by itself.
    pub async fn staleness(&self, generation: &Arc<Generation>, spec: &TemplateSpec) -> Staleness {
        let (host, spec) = (Arc::clone(&self.host), spec.clone());
        let generation = Arc::clone(generation);
        aside(move || {
            let recipe = &generation.manifest().recipe;
            host.recipe_now(&spec).compare(recipe)
        })
        .await
    }

    /// What is wrong with the files of the current generation: one is missing, cut short or altered. `None` when they are
    /// what was published; the link to them is then made again, should it be gone. Cheap enough to be asked every few seconds, as [`Factory::staleness`] is.
    ///
    /// # Cancel safety
    /// A dropped call ends by itself.
    pub async fn damage(&self, generation: &Arc<Generation>) -> Option<String> {
        let (generation, host) = (Arc::clone(generation), Arc::clone(&self.host));
        aside(move || {
            let damage = generation.damage(&host.digests);
            if damage.is_none() {
                generation.keep_link();
            }
            damage
        })
        .await
    }

    /// Builds, verifies and publishes a new generation. Earlier ones stay as long as they are kept or in use.
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

    /// Removes a template that is no more: none of its generations is the current one, and those that nobody holds go at
    /// once. The others go with their last holders.
    ///
    /// # Errors
    /// See [`ForgetError`]; part of it may be gone.
    ///
    /// # Cancel safety
    /// A dropped call ends by itself.
    pub async fn forget(&self, template: &str) -> Result<(), ForgetError> {
        let (host, template) = (Arc::clone(&self.host), template.to_owned());
        aside(move || template::forget(&host.store(&template), &template, &host.registry)).await
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
        if specs.nics.contains(&NicSpec::User) {
            let qemu = &self.host.qemu;
            if !qemu.found().has_user_network {
                return Err(DeviceError::NoUserNetwork);
            }
            if !qemu.clones_may_connect() {
                return Err(DeviceError::UserNetworksOff);
            }
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
