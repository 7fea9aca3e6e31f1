//! The place of a build: room, files, and the machine that boots in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use super::reserve;
use super::running::Running;
use crate::aside::aside;
use crate::driver::Boot;
use crate::host::{Host, PlaceError, ProgramDigests, VSOCK_DEVICE, Vsock};
use crate::memory;
use crate::template::check::read_manifest;
use crate::template::store::{GenerationDir, Store};
use crate::template::{
    BuildError, BuildProgress, BuildStep, Manifest, Misfit, Recipe, refuse_foreign,
};
use crate::vm::{LiveVm, Role, StartPlan};
use crate::{Accel, GenerationId, MachineType, Phases, TemplateSpec, VmId};

/// What every state of a build has.
pub(super) struct Site {
    pub(super) host: Arc<Host>,
    pub(super) spec: TemplateSpec,
    pub(super) id: GenerationId,
    pub(super) store: Store,
    pub(super) dir: GenerationDir,
    pub(super) recipe: Recipe,
    /// The release of the guest's kernel, where its image tells.
    pub(super) guest_kernel: Option<String>,
    /// Whether the machine that boots lets all others go first. Canaries do not: they are as short as clones, and have to
    /// show that their clocks are right, which a guest that is kept waiting cannot.
    gives_way: bool,
}

impl Site {
    pub(super) fn file_error(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> BuildError {
        let path = path.to_owned();
        move |source| BuildError::File {
            action,
            path,
            source,
        }
    }
}

/// There is room, and the files that the boot needs are in it.
pub(super) struct Reserved {
    site: Site,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Reserved {
    pub(super) async fn make(host: Arc<Host>, spec: TemplateSpec) -> Result<Self, BuildError> {
        // Allocating and digesting block for as long as a guest boots on a fast host.
        aside(move || Self::make_blocking(host, spec)).await
    }

    fn make_blocking(host: Arc<Host>, spec: TemplateSpec) -> Result<Self, BuildError> {
        let run_dir = host.places.run.renew().map_err(PlaceError::into_io);
        run_dir.map_err(Site::file_error("use", &host.run_dir))?;
        let place = host.registry.renew_place();
        place.map_err(Site::file_error("use", &host.template_path))?;
        reserve::check_room(&host.template_path, spec.memory_mib)?;
        let store = host.store(&spec.name);
        let id = store
            .next_id()
            .map_err(Site::file_error("read", store.path()))?;
        let path = store.generation_path(&id);
        let dir = store
            .create(&id)
            .map_err(Site::file_error("create", &path))?;

        let memory = dir.memory();
        let file = dir
            .create_memory()
            .map_err(Site::file_error("create", &memory))?;
        reserve::allocate(&file, &memory, spec.memory_mib)?;

        // Copies: the hypervisor's user need not be able to read the originals, and what is digested is what boots.
        let kernel = dir.path().join("kernel");
        let initrd = dir.path().join("initrd");
        for (from, to) in [(&spec.kernel, &kernel), (&spec.initrd, &initrd)] {
            let mut original = File::open(from).map_err(Site::file_error("read", from))?;
            dir.copy_for_build(&mut original, to)
                .map_err(Site::file_error("write", to))?;
        }
        let stub = File::open(&kernel).and_then(crate::qemu::kernel_stub);
        let stub = stub.map_err(Site::file_error("use", &spec.kernel))?;
        let guest_kernel = File::open(&kernel).and_then(crate::kernel::release_of);
        let guest_kernel = guest_kernel.map_err(Site::file_error("read", &kernel))?;
        let path = dir.kernel_stub();
        dir.write_read_only(&path, &stub)
            .map_err(Site::file_error("write", &path))?;
        let digest =
            |copy: &Path| memory::file_digest(copy).map_err(Site::file_error("read", copy));
        let qemu = host.qemu.found().path;
        let programs = ProgramDigests {
            qemu: (host.digests.of(&qemu)).map_err(Site::file_error("read", &qemu))?,
            kernel: digest(&kernel)?,
            initrd: digest(&initrd)?,
        };
        let recipe = host.recipe_of(&spec, programs);
        let gives_way = is_in_service(&host, &store);
        Ok(Self {
            site: Site {
                host,
                spec,
                id,
                store,
                dir,
                recipe,
                guest_kernel,
                gives_way,
            },
            kernel,
            initrd,
        })
    }

    /// Makes the file for the state, and opens the device of AF_VSOCK where the machine has one. It blocks.
    fn open_files(site: Site) -> Result<(Site, File, Option<Vsock>), BuildError> {
        let path = site.dir.state();
        let state = site.dir.create_writable(&path);
        let state = state.map_err(Site::file_error("create", &path))?;
        let vsock = site.recipe.vsock.then(|| site.host.cids.open());
        let vsock = vsock
            .transpose()
            .map_err(Site::file_error("open", Path::new(VSOCK_DEVICE)))?;
        Ok((site, state, vsock))
    }

    pub(super) async fn boot(self, progress: &BuildProgress) -> Result<Running, BuildError> {
        let Self {
            site,
            kernel,
            initrd,
        } = self;
        let begun = Instant::now();
        let (site, state, vsock) = aside(move || Self::open_files(site)).await?;
        let plan = StartPlan {
            id: VmId::random(),
            role: Role::Template,
            template: site.spec.name.clone(),
            generation: Some(site.id.clone()),
            machine: site.spec.machine,
            accel: site.recipe.accel,
            cpu: site.recipe.cpu.clone(),
            vcpus: site.recipe.vcpus,
            max_vcpus: site.recipe.max_vcpus,
            memory_mib: site.recipe.memory_mib,
            max_memory_mib: site.recipe.max_memory_mib,
            memory: site.dir.memory(),
            vsock,
            boot: Boot::Template {
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                params: boot_params(&site.recipe).await,
            },
            gives_way: site.gives_way,
            state: state.into(),
            console_max_bytes: site.spec.console_max_bytes,
        };
        let vm = LiveVm::start(&*site.host.driver, &site.host.places.run, plan).await?;
        let waiting = Instant::now();
        let agent = vm.agent(waiting + site.spec.ready_timeout).await;
        let agent = agent.map_err(|source| BuildError::NeverReady {
            source,
            console: vm.last_console_lines(),
        })?;
        let agent_took = waiting.elapsed();
        progress.step(BuildStep::Ready);
        // Tens of MiB are given back.
        aside(move || {
            let mut copies = [&kernel, &initrd].into_iter();
            copies.try_for_each(|path| {
                fs::remove_file(path).map_err(Site::file_error("remove", path))
            })
        })
        .await?;
        let mut phases = Phases {
            spawn: vm.spawn,
            qmp: vm.qmp,
            agent: agent_took,
            ..Phases::default()
        };
        phases.total = begun.elapsed();
        Running::begin(site, vm, agent, phases).await
    }
}

/// Whether clones are made of another generation meanwhile. Then nobody waits for this build, and those clones go first;
/// else everybody waits for it.
fn is_in_service(host: &Host, store: &Store) -> bool {
    let Ok(Some(current)) = store.current() else {
        return false;
    };
    let path = store.generation_path(&current);
    let files = host.registry.held(&path);
    let is_restorable = |manifest: Manifest| {
        let misfit = refuse_foreign(&manifest.recipe, &host.platform());
        !matches!(misfit, Err(Misfit::Foreign(_)))
    };
    files.is_some_and(|files| !files.is_damaged()) && read_manifest(&path).is_ok_and(is_restorable)
}

/// The kernel's parameters, and what is known of this host alone: it is not part of the recipe, or every build would
/// differ from every other.
async fn boot_params(recipe: &Recipe) -> String {
    match (recipe.machine, recipe.accel) {
        // This board has no clock to measure the processor's with but one that stands still when the host is busy. A
        // kernel that cannot make sense of it hangs. Under KVM the hypervisor tells.
        (MachineType::Microvm, Accel::Tcg) => match aside(crate::sys::tsc_khz).await {
            Some(khz) => format!("{} tsc_early_khz={khz}", recipe.kernel_params),
            None => recipe.kernel_params.clone(),
        },
        _ => recipe.kernel_params.clone(),
    }
}
