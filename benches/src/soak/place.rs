//! Where a soak works: a folder of its own, with the configuration, the run directory, the templates and the log.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::host;

/// The guest's memory, MiB: builds and looks at generations take half as long as with the default.
pub(super) const MEMORY_MIB: u64 = 128;
/// Warm clones that the pool keeps.
pub(super) const TARGET: u64 = 2;
/// Generations that stay on disk.
pub(super) const KEEP_GENERATIONS: usize = 2;
/// How long what is killed may take to be gone.
pub(super) const GONE_DEADLINE: Duration = Duration::from_secs(10);

pub(super) struct Place {
    pub(super) folder: PathBuf,
    program: PathBuf,
}

impl Place {
    pub(super) fn new(program: PathBuf) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("vmint-soak-")
            .tempdir_in("/dev/shm")?
            .keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
        let place = Self { folder, program };
        // A sandbox can be smaller than the default: what is soaked is the service.
        let text = format!(
            "[server]\nlisten = \"\"\n\
             [host]\nrun_dir = \"{run}\"\ntemplate_path = \"{template}\"\n\
             [templates.default]\nmemory = \"{MEMORY_MIB}MiB\"\nmax_memory = \"{MEMORY_MIB}MiB\"\nmax_vcpus = 1\n\
             keep_generations = {KEEP_GENERATIONS}\n\
             [templates.default.pool]\ntarget = {TARGET}\nmax = 12\nqueue = 16\n",
            run = place.run_dir().display(),
            template = place.template_path().display(),
        );
        std::fs::write(place.config(), text)?;
        Ok(place)
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    pub(super) fn template_path(&self) -> PathBuf {
        self.folder.join("template")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.run_dir().join("api.sock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("vmint.toml")
    }

    /// The program with a subcommand and this configuration.
    pub(super) fn vmint(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args([Path::new(subcommand), Path::new("--config")])
            .arg(self.config())
            .stdin(Stdio::null());
        command
    }

    /// Cleans up as an operator would.
    pub(super) async fn clean(&self) -> anyhow::Result<()> {
        let output = tokio::time::timeout(GONE_DEADLINE, self.vmint("clean").output()).await??;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "vmint clean: {said}");
        let is_clean = !self.run_dir().exists() && !self.template_path().exists();
        anyhow::ensure!(is_clean, "vmint clean has left something: {said}");
        Ok(())
    }

    pub(super) fn remove(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }

    /// Ends every process that names this folder, the service first: nobody makes another machine then. The folder is
    /// nobody else's, and its name was never used before.
    pub(super) fn end_everything(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + GONE_DEADLINE;
        loop {
            let seen = host::processes(&self.folder)?;
            let machines = seen.machines.iter().map(|machine| machine.pid);
            let (first, then) = (
                seen.services.iter().copied(),
                seen.guardians.iter().copied(),
            );
            let pids: Vec<_> = first.chain(then).chain(machines).collect();
            if pids.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "these do not end: {pids:?}");
            for pid in pids {
                // Gone meanwhile is as good.
                if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                    anyhow::ensure!(error == nix::Error::ESRCH, "cannot end {pid}: {error}");
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
