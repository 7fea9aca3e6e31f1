//! A guest that answers, up to its save.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::COMMAND_DEADLINE;
use super::saved::Saved;
use super::site::Site;
use crate::aside::aside;
use crate::clock::WallNs;
use crate::guest::{Agent, ExecRequest, GuestError};
use crate::memory::{Digests, MemorySurvey};
use crate::template::error::failure;
use crate::template::manifest::{FileSeal, Files, SavedClock};
use crate::template::{BuildError, reserve};
use crate::vm::LiveVm;
use crate::{Argv, Phases};

/// How long the device state may take to be saved: it is written to memory, in milliseconds.
const SAVE_DEADLINE: Duration = Duration::from_secs(60);

/// The guest answers.
pub(super) struct Running {
    site: Site,
    vm: LiveVm,
    agent: Agent,
    phases: Phases,
    first_exec: Duration,
}

impl Running {
    /// Takes over a guest that has answered, and runs its first command.
    pub(super) async fn begin(
        site: Site,
        vm: LiveVm,
        agent: Agent,
        phases: Phases,
    ) -> Result<Self, BuildError> {
        let mut running = Self {
            site,
            vm,
            agent,
            phases,
            first_exec: Duration::ZERO,
        };
        running.first_exec = running.first_exec().await?;
        Ok(running)
    }

    /// Runs the first command of a freshly booted guest: what a cold start costs up to its answer.
    async fn first_exec(&self) -> Result<Duration, BuildError> {
        let begun = Instant::now();
        self.command(&vec!["true".to_owned()]).await?;
        Ok(begun.elapsed())
    }

    async fn command(&self, argv: &Argv) -> Result<(), BuildError> {
        let request = ExecRequest::new(argv.clone(), COMMAND_DEADLINE);
        let outcome = self.vm.unless_ended(self.agent.exec(request)).await;
        match failure(outcome) {
            Some(reason) => Err(BuildError::Warmup {
                argv: argv.clone(),
                reason,
            }),
            None => Ok(()),
        }
    }

    /// Runs the template's warm-up commands: what they leave in memory is in every clone.
    pub(super) async fn warm_up(&mut self) -> Result<(), BuildError> {
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
    pub(super) async fn save(self) -> Result<Saved, BuildError> {
        let prepared = self.vm.unless_ended(self.agent.prepare()).await;
        let prepared = prepared.map_err(|e| self.guest_failed(e))?;
        let ahead = self.vm.unless_ended(self.agent.clock_ahead_ns()).await;
        let ahead_ns = ahead.map_err(|e| self.guest_failed(e))?;
        let asked = (WallNs::now(), Instant::now());
        self.vm.monitor.pause().await?;
        let paused_at = asked.0.plus(asked.1.elapsed() / 2);
        if let Err(source) = self.vm.monitor.save(SAVE_DEADLINE).await {
            let path = &self.site.host.template_path;
            return Err(match reserve::is_full(path) {
                true => BuildError::Full {
                    path: path.clone(),
                    source,
                },
                false => BuildError::Save(source),
            });
        }
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
        let (site, files, survey) = aside(move || seal(site)).await?;
        Ok(Saved {
            site,
            protocol: agent.protocol(),
            process_control: prepared.process_control,
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
            .seal(path)
            .map_err(Site::file_error("seal", path))?;
    }
    let path = site.dir.path();
    site.dir
        .open_to_clones()
        .map_err(Site::file_error("open to clones", path))?;
    let digests = &site.host.digests;
    let sealed = |path: &PathBuf| file_seal(path, digests).map_err(Site::file_error("read", path));
    let files = Files {
        memory: sealed(&memory)?,
        state: sealed(&state)?,
        kernel_stub: sealed(&stub)?,
    };
    let file = fs::File::open(&memory).map_err(Site::file_error("open", &memory))?;
    let survey = MemorySurvey::of(&file).map_err(Site::file_error("read", &memory))?;
    Ok((site, files, survey))
}

/// A file's length and digest, which is remembered for the clones to come.
fn file_seal(path: &Path, digests: &Digests) -> io::Result<FileSeal> {
    Ok(FileSeal {
        bytes: fs::metadata(path)?.len(),
        digest: digests.read(path)?,
    })
}
