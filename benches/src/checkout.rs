//! Checkout from a filled pool, over one kept loopback connection to the real service.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::lab::{DEADLINE, target_folder};
use crate::stats::{Sample, Target, verdict};

/// Clones that wait: what is measured is a full pool, so one would do; two is the default of the service.
const POOL_TARGET: u32 = 2;

/// Checks sandboxes out of a pool that is full each time.
pub(crate) async fn run(count: u32) -> anyhow::Result<()> {
    println!("\ncheckout from a filled pool over a kept loopback connection, {count} times");
    let folder = tempfile::Builder::new()
        .prefix("vmint-bench-")
        .tempdir_in("/dev/shm")?;
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o711),
    )?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut service = start(folder.path(), port)?;
    let outcome = measure(port, count, &mut service).await;
    stop(&mut service).await?;
    let Measured {
        floor,
        plain,
        bound,
        second_exec,
    } = outcome?;
    println!("  GET /healthz         {floor}");
    println!("  checkout             {plain}");
    println!("  ... with name, env   {bound}");
    println!("  second exec of true  {second_exec}");
    verdict("p50", plain.p50_ms(), "ms", Target::AtMost(0.3));
    verdict("p99", plain.percentile_ms(99.0), "ms", Target::AtMost(2.0));
    verdict(
        "p50 with hostname and env",
        bound.p50_ms(),
        "ms",
        Target::AtMost(5.0),
    );
    Ok(())
}

fn start(folder: &Path, port: u16) -> anyhow::Result<Child> {
    let program = target_folder()?.join("release/vmint");
    anyhow::ensure!(
        program.exists(),
        "no {}: cargo build --release -p vmint",
        program.display()
    );
    let config = folder.join("vmint.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\n[host]\nrun_dir = \"{run}\"\ntemplate_path = \"{template}\"\n\
         [templates.default.pool]\ntarget = {POOL_TARGET}\n",
        run = folder.join("run").display(),
        template = folder.join("template").display(),
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command.env("VMINT_LOG", "warn").spawn()?)
}

async fn stop(service: &mut Child) -> anyhow::Result<()> {
    if let Some(pid) = service.id() {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid.try_into()?),
            nix::sys::signal::Signal::SIGTERM,
        )?;
    }
    let status = tokio::time::timeout(DEADLINE, service.wait()).await??;
    anyhow::ensure!(status.success(), "the service ended with {status}");
    Ok(())
}

/// What was measured in one run, in turns.
struct Measured {
    floor: Sample,
    plain: Sample,
    bound: Sample,
    second_exec: Sample,
}

async fn measure(port: u16, count: u32, service: &mut Child) -> anyhow::Result<Measured> {
    let deadline = Instant::now() + DEADLINE;
    let mut connection = loop {
        if let Some(status) = service.try_wait()? {
            anyhow::bail!("the service has ended: {status}");
        }
        match Connection::open(port).await {
            Ok(connection) => break connection,
            Err(error) if Instant::now() > deadline => {
                return Err(error.context("the service does not listen"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let mut measured = Measured {
        floor: Sample::new()?,
        plain: Sample::new()?,
        bound: Sample::new()?,
        second_exec: Sample::new()?,
    };
    let binding = json!({"hostname": "job-17", "env": {"JOB": "17", "TOKEN": "secret"}});
    let argv = json!({"argv": ["/bin/true"]});
    for round in 0..2 * count {
        connection
            .until_full(deadline.max(Instant::now() + DEADLINE))
            .await?;
        // The floor: a request that does nothing, on the same connection, in the same moment.
        let begun = Instant::now();
        connection.call(Method::GET, "/healthz").await?;
        measured.floor.add(begun.elapsed())?;
        let is_bound = round % 2 == 1;
        let (sample, body) = if is_bound {
            (&mut measured.bound, Some(&binding))
        } else {
            (&mut measured.plain, None)
        };
        let begun = Instant::now();
        let (status, sandbox) = connection.send(Method::POST, "/v1/sandboxes", body).await?;
        sample.add(begun.elapsed())?;
        anyhow::ensure!(
            status == StatusCode::CREATED && sandbox["source"] == "pool",
            "{status}: {sandbox}"
        );
        let id = sandbox["id"].as_str().context("a sandbox has an id")?;
        if is_bound {
            let exec = format!("/v1/sandboxes/{id}/exec");
            connection.send(Method::POST, &exec, Some(&argv)).await?;
            let begun = Instant::now();
            let (status, end) = connection.send(Method::POST, &exec, Some(&argv)).await?;
            measured.second_exec.add(begun.elapsed())?;
            anyhow::ensure!(
                status == StatusCode::OK && end["exit_code"] == 0,
                "{status}: {end}"
            );
        }
        let (status, _) = connection
            .call(Method::DELETE, &format!("/v1/sandboxes/{id}"))
            .await?;
        anyhow::ensure!(status == StatusCode::NO_CONTENT, "release: {status}");
    }
    Ok(measured)
}

/// One kept connection.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    async fn open(port: u16) -> anyhow::Result<Self> {
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

    async fn call(&mut self, method: Method, path: &str) -> anyhow::Result<(StatusCode, Value)> {
        self.send(method, path, None).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "application/json");
        let body = body.map_or_else(Full::default, |body| Full::from(body.to_string()));
        // The answer before this one has come; the connection may need a moment to be done with it.
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(body)?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body)?
        };
        Ok((status, value))
    }

    /// Waits until as many clones are ready as there should be, and nothing else is going on.
    async fn until_full(&mut self, deadline: Instant) -> anyhow::Result<()> {
        loop {
            let (_, pool) = self.call(Method::GET, "/v1/pools/default").await?;
            let is_quiet = pool["launching"] == 0 && pool["releasing"] == 0;
            if is_quiet && pool["ready"].as_u64() == Some(POOL_TARGET.into()) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "the pool does not fill: {pool}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
