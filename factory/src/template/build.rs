//! The pipeline: each state is a type, each step takes the one before it.
//!
//! ```text
//! Reserved --boot()--> Running --warm_up()--> Running --save()--> Saved --verify()--> Verified --publish()--> Generation
//! ```
//!
//! A step that fails drops what it was given, and dropping cleans up: the machine ends, the directory goes. The same
//! happens when the future is dropped between two steps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::BuildError;
use super::error::failure;
use super::generation::Generation;
use super::manifest::{FileSeal, Files, Manifest, Recipe, SavedClock, VerifyReport};
use super::progress::{BuildProgress, BuildStep};
use super::reserve;
use super::store::{GenerationDir, Store};
use super::verify::verify;
use crate::clock::WallNs;
use crate::driver::Boot;
use crate::guest::{Agent, AgentKind, ExecRequest, GuestError};
use crate::host::Host;
use crate::memory::{self, MemorySurvey};
use crate::vm::{LiveVm, Role, StartPlan};
use crate::{Argv, GenerationId, Phases, TemplateSpec, VmId};

/// How long the device state may take to be saved: it is written to memory, in milliseconds.
const SAVE_DEADLINE: Duration = Duration::from_secs(60);
/// How long one warm-up or verification command may take.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// Builds, verifies and publishes a new generation.
///
/// # Cancel safety
/// A dropped call leaves nothing behind: the machine is ended in the background and the directory is removed.
pub(crate) async fn build(
    host: &Arc<Host>,
    spec: &TemplateSpec,
    progress: &BuildProgress,
) -> Result<Generation, BuildError> {
    refuse_unfit(host, spec)?;
    let mut clock = StepClock::start();
    progress.step(BuildStep::Reserving);
    let reserved = Reserved::make(Arc::clone(host), spec.clone()).await?;
    clock.lap("reserve");
    progress.step(BuildStep::Booting);
    let mut running = reserved.boot(progress).await?;
    clock.lap("boot");
    progress.step(BuildStep::Warming);
    running.warm_up().await?;
    clock.lap("warmup");
    progress.step(BuildStep::Saving);
    let saved = running.save().await?;
    clock.lap("save");
    progress.step(BuildStep::Verifying);
    let verified = saved.verify().await?;
    clock.lap("verify");
    progress.step(BuildStep::Publishing);
    verified.publish(clock.laps)
}

fn refuse_unfit(host: &Host, spec: &TemplateSpec) -> Result<(), BuildError> {
    let can = host.driver.capabilities(spec.machine);
    let wanted = [
        (can.templates, "way to save a template"),
        (can.read_only_memory, "read-only memory for clones"),
        (
            can.generation_id,
            "VM generation id, so clones would share their random numbers",
        ),
    ];
    match wanted.iter().find(|(has, _)| !has) {
        Some(&(_, lacks)) => Err(BuildError::Unfit {
            machine: spec.machine.as_str(),
            lacks,
        }),
        None => Ok(()),
    }
}

/// How long each step took.
struct StepClock {
    since: Instant,
    laps: Vec<(String, Duration)>,
}

impl StepClock {
    fn start() -> Self {
        Self {
            since: Instant::now(),
            laps: Vec::new(),
        }
    }

    fn lap(&mut self, step: &str) {
        let now = Instant::now();
        self.laps.push((step.to_owned(), now - self.since));
        self.since = now;
    }
}

/// What every state of a build has.
struct Site {
    host: Arc<Host>,
    spec: TemplateSpec,
    id: GenerationId,
    store: Store,
    dir: GenerationDir,
    recipe: Recipe,
}

impl Site {
    fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
        let path = path.to_owned();
        move |source| BuildError::File {
            action,
            path,
            source,
        }
    }
}

/// There is room, and the files that the boot needs are in it.
struct Reserved {
    site: Site,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Reserved {
    async fn make(host: Arc<Host>, spec: TemplateSpec) -> Result<Self, BuildError> {
        // Allocating and digesting block for as long as a guest boots on a fast host.
        let made = tokio::task::spawn_blocking(move || Self::make_blocking(host, spec)).await;
        made.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    fn make_blocking(host: Arc<Host>, spec: TemplateSpec) -> Result<Self, BuildError> {
        reserve::check_room(&host.template_path, spec.memory_mib)?;
        let store = host.store(&spec.name);
        let id = GenerationId::new();
        let path = store.generation_path(&id);
        let dir = store
            .create(&id)
            .map_err(Site::file_error("create", &path))?;

        let memory = dir.memory();
        let file = dir
            .create_writable(&memory)
            .map_err(Site::file_error("create", &memory))?;
        reserve::allocate(&file, &memory, spec.memory_mib)?;

        // Copies: the hypervisor's user need not be able to read the originals, and what is digested is what boots.
        let kernel = dir.path().join("kernel");
        let initrd = dir.path().join("initrd");
        let kernel_bytes =
            fs::read(&spec.kernel).map_err(Site::file_error("read", &spec.kernel))?;
        let initrd_bytes =
            fs::read(&spec.initrd).map_err(Site::file_error("read", &spec.initrd))?;
        let stub = crate::qemu::kernel_stub(&kernel_bytes)
            .map_err(Site::file_error("use", &spec.kernel))?;
        for (path, bytes) in [
            (&kernel, &kernel_bytes),
            (&initrd, &initrd_bytes),
            (&dir.kernel_stub(), &stub),
        ] {
            dir.write_read_only(path, bytes)
                .map_err(Site::file_error("write", path))?;
        }
        let recipe = host.recipe_of(
            &spec,
            memory::bytes_digest(&kernel_bytes),
            memory::bytes_digest(&initrd_bytes),
        );
        Ok(Self {
            site: Site {
                host,
                spec,
                id,
                store,
                dir,
                recipe,
            },
            kernel,
            initrd,
        })
    }

    async fn boot(self, progress: &BuildProgress) -> Result<Running, BuildError> {
        let Self {
            site,
            kernel,
            initrd,
        } = self;
        let begun = Instant::now();
        let state_path = site.dir.state();
        let state = site
            .dir
            .create_writable(&state_path)
            .map_err(Site::file_error("create", &state_path))?;
        // QEMU wants a descriptor for writing only: it compares the access mode.
        let state = fs::OpenOptions::new()
            .write(true)
            .open(&state_path)
            .map(|writer| (state, writer).1);
        let state = state.map_err(Site::file_error("open", &state_path))?;
        let plan = StartPlan {
            id: VmId::random(),
            role: Role::Template,
            template: site.spec.name.clone(),
            generation: Some(site.id.clone()),
            machine: site.spec.machine,
            accel: site.recipe.accel,
            cpu: site.recipe.cpu.clone(),
            vcpus: site.spec.vcpus,
            memory_mib: site.spec.memory_mib,
            memory: site.dir.memory(),
            boot: Boot::Template {
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                params: site.recipe.kernel_params.clone(),
            },
            state: state.into(),
            console_max_bytes: site.spec.console_max_bytes,
        };
        let vm = LiveVm::start(&*site.host.driver, &site.host.run_dir, plan).await?;
        let waiting = Instant::now();
        let agent = vm.unknown_agent(waiting + site.spec.ready_timeout).await;
        let agent = agent.map_err(|source| BuildError::NeverReady {
            source,
            console: vm.last_console_lines(),
        })?;
        let agent_took = waiting.elapsed();
        progress.step(BuildStep::Ready);
        for path in [&kernel, &initrd] {
            fs::remove_file(path).map_err(Site::file_error("remove", path))?;
        }
        let mut phases = Phases {
            spawn: vm.spawn,
            qmp: vm.qmp,
            agent: agent_took,
            ..Phases::default()
        };
        phases.total = begun.elapsed();
        let mut running = Running {
            site,
            vm,
            agent,
            phases,
            first_exec: Duration::ZERO,
        };
        running.first_exec = running.first_exec().await?;
        Ok(running)
    }
}

/// The guest answers.
struct Running {
    site: Site,
    vm: LiveVm,
    agent: Agent,
    phases: Phases,
    first_exec: Duration,
}

impl Running {
    /// Runs the first command of a freshly booted guest: what a cold start costs up to its answer.
    async fn first_exec(&self) -> Result<Duration, BuildError> {
        let begun = Instant::now();
        self.command(&vec!["true".to_owned()]).await?;
        Ok(begun.elapsed())
    }

    async fn command(&self, argv: &Argv) -> Result<(), BuildError> {
        let request = ExecRequest::new(argv.clone(), COMMAND_DEADLINE);
        let outcome = self.vm.unless_ended(self.agent.exec(&request)).await;
        match failure(outcome) {
            Some(reason) => Err(BuildError::Warmup {
                argv: argv.clone(),
                reason,
            }),
            None => Ok(()),
        }
    }

    /// Runs the template's warm-up commands: what they leave in memory is in every clone.
    async fn warm_up(&mut self) -> Result<(), BuildError> {
        let begun = Instant::now();
        for argv in &self.site.spec.warmup {
            self.command(argv).await?;
        }
        self.phases.warmup = begun.elapsed();
        self.phases.total += self.phases.warmup;
        Ok(())
    }

    fn guest_failed(&self, source: GuestError) -> BuildError {
        BuildError::Guest {
            source,
            console: self.vm.last_console_lines(),
        }
    }

    /// Pauses the guest, saves its device state, ends it, and takes the right to write away.
    async fn save(self) -> Result<Saved, BuildError> {
        let prepared = self.vm.unless_ended(self.agent.prepare()).await;
        prepared.map_err(|e| self.guest_failed(e))?;
        let ahead = self.vm.unless_ended(self.agent.clock_ahead_ns()).await;
        let ahead_ns = ahead.map_err(|e| self.guest_failed(e))?;
        let asked = (WallNs::now(), Instant::now());
        self.vm.monitor.pause().await?;
        let paused_at = asked.0.plus(asked.1.elapsed() / 2);
        self.vm.monitor.save(SAVE_DEADLINE).await?;
        let Self {
            site,
            vm,
            agent,
            phases,
            first_exec,
        } = self;
        vm.end().await;
        let clock = SavedClock {
            paused_at,
            ahead_ns,
        };
        let sealed = tokio::task::spawn_blocking(move || seal(site)).await;
        let (site, files, survey) =
            sealed.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
        Ok(Saved {
            site,
            agent: agent.kind(),
            files,
            survey,
            clock,
            phases,
            first_exec,
        })
    }
}

/// Makes the files unchangeable and says what they are.
fn seal(site: Site) -> Result<(Site, Files, MemorySurvey), BuildError> {
    let [memory, state, stub] = [site.dir.memory(), site.dir.state(), site.dir.kernel_stub()];
    for path in [&memory, &state] {
        site.dir
            .make_read_only(path)
            .map_err(Site::file_error("protect", path))?;
    }
    let sealed = |path: &PathBuf| file_seal(path).map_err(Site::file_error("read", path));
    let files = Files {
        memory: sealed(&memory)?,
        state: sealed(&state)?,
        kernel_stub: sealed(&stub)?,
    };
    let file = fs::File::open(&memory).map_err(Site::file_error("open", &memory))?;
    let survey = MemorySurvey::of(&file).map_err(Site::file_error("read", &memory))?;
    Ok((site, files, survey))
}

/// A file's length and digest.
pub(super) fn file_seal(path: &Path) -> io::Result<FileSeal> {
    Ok(FileSeal {
        bytes: fs::metadata(path)?.len(),
        digest: memory::file_digest(path)?,
    })
}

/// The files are whole and unchangeable.
struct Saved {
    site: Site,
    agent: AgentKind,
    files: Files,
    survey: MemorySurvey,
    clock: SavedClock,
    phases: Phases,
    first_exec: Duration,
}

impl Saved {
    /// Mints canaries from it: it must work before it is published.
    async fn verify(self) -> Result<Verified, BuildError> {
        let manifest = Manifest {
            format: Manifest::FORMAT,
            template: self.site.spec.name.clone(),
            generation: self.site.id.clone(),
            built_at: Timestamp::now(),
            recipe: self.site.recipe.clone(),
            files: self.files,
            memory: self.survey,
            agent: self.agent,
            clock: self.clock,
            boot_phases: self.phases,
            first_exec: self.first_exec,
            build_phases: Vec::new(),
            report: VerifyReport {
                canaries: Vec::new(),
                memory_unchanged: false,
            },
        };
        let path = self.site.dir.path().to_owned();
        let draft = Arc::new(Generation::new(
            path,
            manifest.clone(),
            self.site.spec.clone(),
        ));
        let report = verify(&self.site.host, &draft).await?;
        Ok(Verified {
            site: self.site,
            manifest: Manifest { report, ..manifest },
        })
    }
}

/// Canaries have shown that it works.
struct Verified {
    site: Site,
    manifest: Manifest,
}

impl Verified {
    /// Writes the manifest and makes it the current generation.
    fn publish(self, build_phases: Vec<(String, Duration)>) -> Result<Generation, BuildError> {
        let Self { site, manifest } = self;
        let manifest = Manifest {
            build_phases,
            built_at: Timestamp::now(),
            ..manifest
        };
        let path = site.dir.path().to_owned();
        manifest
            .write(&path)
            .map_err(Site::file_error("write the manifest in", &path))?;
        site.store
            .publish(&site.id)
            .map_err(Site::file_error("publish", &path))?;
        Ok(Generation::new(site.dir.keep(), manifest, site.spec))
    }
}
