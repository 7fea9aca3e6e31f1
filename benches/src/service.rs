//! The real service, in a folder of its own, and a client's connection to it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use vmint_factory::Manifest;

use crate::by_hand::Recipe;
use crate::lab::{DEADLINE, MEMORY_MIB, target_folder};

/// Clones that wait: what is measured is a full pool, so one would do; two is the default of the service.
const POOL_TARGET: u32 = 2;

/// A service that runs.
pub(crate) struct Service {
    child: Child,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
}

impl Service {
    /// Starts the release build.
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::start_program(&program()?, POOL_TARGET)
    }

    /// Starts a vmint. Its clones cannot grow: they are as those by hand.
    pub(crate) fn start_program(program: &Path, pool_target: u32) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("vmint-bench-")
            .tempdir_in("/dev/shm")?;
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o711),
        )?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = folder.path().join("vmint.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\n\
             [host]\nrun_dir = \"{run}\"\ntemplate_path = \"{template}\"\n\
             [templates.default]\nmemory = \"{MEMORY_MIB}MiB\"\nmax_memory = \"{MEMORY_MIB}MiB\"\nmax_vcpus = 1\n\
             [templates.default.pool]\ntarget = {pool_target}\n",
            run = folder.path().join("run").display(),
            template = folder.path().join("template").display(),
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let child = command.env("VMINT_LOG", "warn").spawn()?;
        Ok(Self {
            child,
            port,
            folder,
        })
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the service has ended")
    }

    /// Connects, once it listens.
    pub(crate) async fn connect(&mut self) -> anyhow::Result<Connection> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the service has ended: {status}");
            }
            match Connection::open(self.port).await {
                Ok(connection) => return Ok(connection),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context("the service does not listen"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// How to make the same clones by hand.
    pub(crate) fn recipe(&self) -> anyhow::Result<Recipe> {
        let files = self.folder.path().join("template/default/current");
        let files = files.canonicalize()?;
        let manifest: Manifest =
            serde_json::from_slice(&std::fs::read(files.join("manifest.json"))?)?;
        Recipe::of(files, Path::new("qemu-system-x86_64"), &manifest)
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.try_into()?),
                nix::sys::signal::Signal::SIGTERM,
            )?;
        }
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await??;
        anyhow::ensure!(status.success(), "the service ended with {status}");
        Ok(())
    }
}

/// The release build of the program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let program = target_folder()?.join("release/vmint");
    anyhow::ensure!(
        program.exists(),
        "no {}: cargo build --release -p vmint",
        program.display()
    );
    Ok(program)
}

/// One kept connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                println!("  the connection failed: {error}");
            }
        });
        Ok(Self {
            sender,
            host: format!("127.0.0.1:{port}"),
        })
    }

    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
    ) -> anyhow::Result<(StatusCode, Value)> {
        self.send(method, path, None).await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let body = body.map_or_else(Full::default, |body| Full::from(body.to_string()));
        let response = self.exchange(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body)?
        };
        Ok((status, value))
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Full<Bytes>,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "application/json");
        // The answer before this one has come; the connection may need a moment to be done with it.
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(body)?).await?)
    }

    /// Takes a sandbox out of the full pool, and answers its id.
    pub(crate) async fn checkout(&mut self) -> anyhow::Result<String> {
        self.until_full().await?;
        let (status, sandbox) = self.call(Method::POST, "/v1/sandboxes").await?;
        anyhow::ensure!(status == StatusCode::CREATED, "{status}: {sandbox}");
        let id = sandbox["id"].as_str().context("a sandbox has an id")?;
        Ok(id.to_owned())
    }

    pub(crate) async fn release(&mut self, id: &str) -> anyhow::Result<()> {
        let path = format!("/v1/sandboxes/{id}");
        let (status, _) = self.call(Method::DELETE, &path).await?;
        anyhow::ensure!(status == StatusCode::NO_CONTENT, "release: {status}");
        Ok(())
    }

    /// Runs a command that succeeds.
    pub(crate) async fn exec(&mut self, id: &str, argv: &[&str]) -> anyhow::Result<()> {
        let (path, body) = (format!("/v1/sandboxes/{id}/exec"), json!({"argv": argv}));
        let (status, end) = self.send(Method::POST, &path, Some(&body)).await?;
        let is_well = status == StatusCode::OK && end["exit_code"] == 0;
        anyhow::ensure!(is_well, "{status}: {end}");
        Ok(())
    }

    /// Stores a file.
    pub(crate) async fn put_file(
        &mut self,
        id: &str,
        path: &str,
        content: Bytes,
    ) -> anyhow::Result<()> {
        let uri = format!("/v1/sandboxes/{id}/files?path={path}");
        let response = self
            .exchange(Method::PUT, &uri, Full::from(content))
            .await?;
        let status = response.status();
        response.into_body().collect().await?;
        anyhow::ensure!(status == StatusCode::NO_CONTENT, "PUT {path}: {status}");
        Ok(())
    }

    /// Reads a file, and answers how many bytes it has.
    pub(crate) async fn get_file(&mut self, id: &str, path: &str) -> anyhow::Result<usize> {
        let uri = format!("/v1/sandboxes/{id}/files?path={path}");
        let mut response = self.exchange(Method::GET, &uri, Full::default()).await?;
        let status = response.status();
        anyhow::ensure!(status == StatusCode::OK, "GET {path}: {status}");
        let mut bytes = 0;
        while let Some(frame) = response.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(bytes)
    }

    /// Waits until as many clones are ready as there should be, and nothing else is going on.
    pub(crate) async fn until_full(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (_, pool) = self.call(Method::GET, "/v1/pools/default").await?;
            let is_quiet = pool["launching"] == 0 && pool["releasing"] == 0;
            if is_quiet && pool["ready"] == pool["target"] {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the pool does not fill: {pool}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
