//! The folders of a service, with a configuration of its own: what it is started in, and what it leaves there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::service::{LONG, Service};

/// The folders of a service. A test that fails leaves them and says where.
pub struct Place {
    pub folder: PathBuf,
    /// Where it listens on TCP.
    pub port: u16,
    /// As whom the program runs; the caller's own user when it is none.
    uid: Option<u32>,
}

impl Place {
    pub fn new() -> anyhow::Result<Self> {
        Self::of(None)
    }

    /// One that belongs to a plain user.
    pub fn of_user(uid: u32) -> anyhow::Result<Self> {
        Self::of(Some(uid))
    }

    fn of(uid: Option<u32>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("vmint-svc-")
            .tempdir_in("/dev/shm")?
            .keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
        std::os::unix::fs::chown(&folder, uid, uid)?;
        eprintln!("the test works in {}", folder.display());
        // Free a moment ago; nobody else on a test machine takes it meanwhile.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        Ok(Self { folder, port, uid })
    }

    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    pub fn template_path(&self) -> PathBuf {
        self.folder.join("template")
    }

    /// Writes the configuration: the folders, and what a test adds.
    pub fn configure(&self, host: &str, template: &str, pool: &str) -> anyhow::Result<()> {
        self.configure_with(&format!(
            "{host}\n[templates.default]\n{template}\n[templates.default.pool]\n{pool}\n"
        ))
    }

    /// Writes the configuration: the folders, and the rest of `[host]` with what comes behind it.
    pub fn configure_with(&self, rest: &str) -> anyhow::Result<()> {
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{}\"\n[host]\nrun_dir = \"{}\"\ntemplate_path = \"{}\"\n{rest}",
            self.port,
            self.run_dir().display(),
            self.template_path().display()
        );
        Ok(std::fs::write(self.config(), text)?)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("vmint.toml")
    }

    /// The program with this configuration and some arguments.
    pub fn vmint(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmint"));
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        command
            .env_remove("VMINT_LOG")
            .env_remove("XDG_RUNTIME_DIR");
        command.env(
            "VMINT_URL",
            format!("unix:{}", self.run_dir().join("api.sock").display()),
        );
        command.env("VMINT_GUEST_DIR", guest_folder());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs the program to its end.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<Output> {
        Ok(tokio::time::timeout(LONG, self.vmint(args).output()).await??)
    }

    /// Runs a subcommand that takes `--config`.
    pub async fn run_configured(&self, args: &[&str]) -> anyhow::Result<Output> {
        let config = self.config().display().to_string();
        let mut args = args.to_vec();
        args.extend(["--config", &config]);
        self.run(&args).await
    }

    /// Starts the service; it may not be ready yet. What a test leaves leased ends with it.
    pub fn start(&self) -> impl Future<Output = anyhow::Result<Service<'_>>> {
        self.start_with(&["--drain-on-exit"])
    }

    /// The same, but sandboxes outlive it.
    pub fn start_mortal(&self) -> impl Future<Output = anyhow::Result<Service<'_>>> {
        self.start_with(&[])
    }

    async fn start_with(&self, args: &[&str]) -> anyhow::Result<Service<'_>> {
        let mut program = self.serve();
        program.args(args);
        Service::start(self, program)
    }

    /// The same, where the wall clock is off by as much as this says, such as `+1d`. Sandboxes outlive it.
    pub fn start_off(&self, by: &str) -> anyhow::Result<Service<'_>> {
        /// It sets the clock of those that load it. The kernel's linker says no word of a library that is not there, so it
        /// is looked for.
        const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
        anyhow::ensure!(
            Path::new(FAKETIME).exists(),
            "there is no {FAKETIME}: scripts/install --tests installs it"
        );
        let mut program = self.serve();
        program
            .env("LD_PRELOAD", FAKETIME)
            .env("FAKETIME", by)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Service::start(self, program)
    }

    /// The same under a shell that says first what is to be so, such as `umask 077`.
    pub fn start_after(&self, what: &str) -> anyhow::Result<Service<'_>> {
        let serve = self.serve();
        let serve = serve.as_std();
        let mut program = Command::new("sh");
        program
            .args(["-c", &format!("{what} && exec \"$0\" \"$@\"")])
            .arg(serve.get_program())
            .args(serve.get_args())
            .arg("--drain-on-exit")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => program.env(name, value),
                None => program.env_remove(name),
            };
        }
        Service::start(self, program)
    }

    fn serve(&self) -> Command {
        let config = self.config().display().to_string();
        self.vmint(&["serve", "--config", &config])
    }

    /// Hypervisors whose memory is in this place.
    pub fn machines(&self) -> anyhow::Result<Vec<i32>> {
        let folder = self.folder.to_string_lossy().into_owned();
        let all = procfs::process::all_processes()?.flatten();
        let ours = all.filter(|process| {
            process.cmdline().is_ok_and(|words| {
                words.iter().any(|word| word.contains("mem-path="))
                    && words.iter().any(|word| word.contains(&folder))
            })
        });
        Ok(ours.map(|process| process.pid()).collect())
    }

    /// The directories of machines.
    pub fn directories(&self) -> anyhow::Result<Vec<String>> {
        let folder = self.run_dir().join("vm");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// What is written down of each machine that runs, or ends. One that has no record yet, or no longer, is left out.
    pub fn records(&self) -> anyhow::Result<Vec<Value>> {
        let folder = self.run_dir().join("vm");
        let read = |id: String| {
            let record = std::fs::read_to_string(folder.join(id).join("vm.json")).ok()?;
            // A line for each of the last two; what is being written is none yet.
            let lines = record.lines().flat_map(serde_json::from_str::<Value>);
            let newest = lines.max_by_key(|line| line["sequence"].as_u64())?;
            Some(newest["record"].clone())
        };
        Ok(self.directories()?.into_iter().filter_map(read).collect())
    }

    /// Looks that no machine is left.
    pub fn nothing_left(&self) -> anyhow::Result<()> {
        let (machines, directories) = (self.machines()?, self.directories()?);
        anyhow::ensure!(machines.is_empty(), "processes are left: {machines:?}");
        anyhow::ensure!(
            directories.is_empty(),
            "directories are left: {directories:?}"
        );
        Ok(())
    }

    /// Cleans up as a user would, and looks that it helped.
    pub async fn close(self) -> anyhow::Result<()> {
        self.nothing_left()?;
        let cleaned = self.run_configured(&["clean"]).await?;
        anyhow::ensure!(
            cleaned.status.success(),
            "clean: {}",
            String::from_utf8_lossy(&cleaned.stderr)
        );
        anyhow::ensure!(
            !self.run_dir().exists() && !self.template_path().exists(),
            "clean has left something"
        );
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

/// Where the guest is that the services boot.
pub fn guest_folder() -> PathBuf {
    match std::env::var_os("VMINT_GUEST_DIR") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest"),
    }
}
