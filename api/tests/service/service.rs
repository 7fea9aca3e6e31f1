//! A running service: the real program, with a configuration and folders of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// How long anything may take that is waited for: generous, because the machine may be busy.
pub const LONG: Duration = Duration::from_secs(180);

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
        let config = self.config().display().to_string();
        let log = self.folder.join("log");
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)?;
        let log_begins = usize::try_from(file.metadata()?.len())?;
        let child = self
            .vmint(&["serve", "--config", &config])
            .args(args)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()?;
        Ok(Service {
            place: self,
            child,
            log,
            log_begins,
        })
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

/// A started service.
pub struct Service<'a> {
    pub place: &'a Place,
    child: Child,
    log: PathBuf,
    /// Where this start's part of the log begins.
    log_begins: usize,
}

impl Service<'_> {
    /// What it has said so far.
    pub fn log(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.log_begins..).unwrap_or_default()).into_owned()
    }

    /// One request over the service's socket.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(u16, Value)> {
        call(&self.place.run_dir().join("api.sock"), method, path, body).await
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, value) = self.call(Method::GET, path, None).await?;
        anyhow::ensure!(status == 200, "{path}: {status} {value}");
        Ok(value)
    }

    pub async fn pool(&self) -> anyhow::Result<Value> {
        self.get("/v1/pools/default").await
    }

    pub async fn checkout(&self, body: Value) -> anyhow::Result<(u16, Value)> {
        self.call(Method::POST, "/v1/sandboxes", Some(body)).await
    }

    /// A sandbox, waited for.
    pub async fn sandbox(&self) -> anyhow::Result<Value> {
        let (status, sandbox) = self.checkout(json!({"wait_ms": 60_000})).await?;
        anyhow::ensure!(status == 201, "{status}: {sandbox}");
        Ok(sandbox)
    }

    pub async fn exec(&self, id: &str, script: &str) -> anyhow::Result<(u16, Value)> {
        let path = format!("/v1/sandboxes/{id}/exec");
        self.call(
            Method::POST,
            &path,
            Some(json!({"argv": ["sh", "-c", script]})),
        )
        .await
    }

    pub async fn release(&self, id: &str) -> anyhow::Result<u16> {
        Ok(self
            .call(Method::DELETE, &format!("/v1/sandboxes/{id}"), None)
            .await?
            .0)
    }

    /// Waits until something is so.
    pub async fn until<F: Future<Output = anyhow::Result<bool>>>(
        &mut self,
        what: &str,
        is_so: impl Fn(String) -> F,
    ) -> anyhow::Result<()> {
        let socket = self.place.run_dir().join("api.sock").display().to_string();
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!(
                    "the service has ended with {status} while waiting for: {what}\n{}",
                    self.log()
                );
            }
            if is_so(socket.clone()).await.unwrap_or(false) {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "not within {LONG:?}: {what}\n{}",
                self.log()
            );
            // A question costs the service something: twenty a second are enough.
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .ok();
        }
    }

    /// Waits until the service says that it is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        self.until("ready", |socket| async move {
            Ok(call(Path::new(&socket), Method::GET, "/readyz", None)
                .await?
                .0
                == 200)
        })
        .await
    }

    /// Waits until the pool is as it should be when nobody wants anything.
    pub async fn quiet(&mut self, ready: u64) -> anyhow::Result<()> {
        self.until("a quiet pool", |socket| async move {
            let (_, pool) =
                call(Path::new(&socket), Method::GET, "/v1/pools/default", None).await?;
            let busy = ["launching", "releasing", "waiters"]
                .iter()
                .any(|state| pool[*state] != 0);
            Ok(!busy && pool["ready"] == ready)
        })
        .await
    }

    /// What the program has open.
    pub fn open_files(&self) -> anyhow::Result<Vec<String>> {
        let pid = self.child.id().context("the service has ended")?;
        let open = procfs::process::Process::new(pid.try_into()?)?.fd()?;
        let paths = open.flatten().filter_map(|fd| match fd.target {
            procfs::process::FDTarget::Path(path) => Some(path.display().to_string()),
            _ => None,
        });
        Ok(paths.collect())
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().context("the service has ended")?;
        Ok(nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid.try_into()?),
            signal,
        )?)
    }

    /// Waits for the service's end and answers its exit code, or the signal that ended it.
    pub async fn ended(&mut self) -> anyhow::Result<Result<i32, i32>> {
        use std::os::unix::process::ExitStatusExt;
        let status = tokio::time::timeout(LONG, self.child.wait()).await??;
        Ok(status
            .code()
            .ok_or_else(|| status.signal().unwrap_or_default()))
    }

    /// Stops it as an operator would.
    pub async fn stop(self) -> anyhow::Result<()> {
        let place = self.place;
        self.leave().await?;
        place.nothing_left()
    }

    /// The same, whatever it leaves behind.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let end = self.ended().await?;
        anyhow::ensure!(
            end == Ok(0),
            "the service ended with {end:?}\n{}",
            self.log()
        );
        Ok(())
    }

    /// `kill -9`.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL)?;
        anyhow::ensure!(self.ended().await? == Err(9), "it was killed");
        Ok(())
    }
}

/// One request to a Unix socket.
pub async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<(u16, Value)> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    let request = match body {
        Some(body) => request
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()))?,
        None => request.body(Full::<Bytes>::default())?,
    };
    let exchange = async {
        let (mut sender, connection) =
            handshake(TokioIo::new(UnixStream::connect(socket).await?)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        anyhow::Ok((
            status,
            serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        ))
    };
    tokio::time::timeout(LONG, exchange).await?
}

/// The id of a sandbox.
pub fn id(sandbox: &Value) -> String {
    sandbox["id"].as_str().unwrap_or_default().to_owned()
}
