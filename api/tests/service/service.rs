//! A running service: the real program, in a place of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

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

pub use crate::place::{Place, guest_folder};
pub use crate::wait::{LONG, eventually};

/// A started service.
pub struct Service<'a> {
    pub place: &'a Place,
    child: Child,
    log: PathBuf,
    /// Where this start's part of the log begins.
    log_begins: usize,
}

impl<'a> Service<'a> {
    /// Starts the program, as `command` says; it may not be ready yet.
    pub fn start(place: &'a Place, mut command: Command) -> anyhow::Result<Self> {
        let log = place.folder.join("log");
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)?;
        let log_begins = usize::try_from(file.metadata()?.len())?;
        let child = command.stdout(Stdio::null()).stderr(file).spawn()?;
        Ok(Self {
            place,
            child,
            log,
            log_begins,
        })
    }
}

impl Service<'_> {
    /// What it has said so far.
    pub fn log(&self) -> String {
        read_log(&self.log, self.log_begins)
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
        let child = &mut self.child;
        let mut ended = None;
        let waited = eventually(what, LONG, async || {
            ended = child.try_wait()?;
            Ok(ended.is_some() || is_so(socket.clone()).await?)
        });
        waited
            .await
            .with_context(|| read_log(&self.log, self.log_begins))?;
        match ended {
            None => Ok(()),
            Some(status) => anyhow::bail!(
                "the service has ended with {status} while waiting for: {what}\n{}",
                self.log()
            ),
        }
    }

    /// Waits until the service has logged this, since it was started.
    pub async fn logs(&mut self, text: &str) -> anyhow::Result<()> {
        let (log, begins) = (self.log.clone(), self.log_begins);
        let (log, text) = (&log, &text);
        let says = move |_| async move { Ok(read_log(log, begins).contains(*text)) };
        self.until(&format!("a log with {text:?}"), says).await
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

fn read_log(log: &Path, begins: usize) -> String {
    let all = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(all.get(begins..).unwrap_or_default()).into_owned()
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
