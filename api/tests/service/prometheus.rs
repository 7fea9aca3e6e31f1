//! The metrics as a real Prometheus reads them.

use std::process::Stdio;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::service::{LONG, Service, eventually};

/// A scrape of a service that has worked passes `promtool`, and Prometheus takes it in.
pub async fn scrapes(service: &mut Service<'_>) -> anyhow::Result<()> {
    // New clones are measured every two seconds, and count nothing before.
    let mut text = String::new();
    eventually("what clones take is measured", LONG, async || {
        let answer = service.get("/metrics").await?;
        text = answer.as_str().unwrap_or_default().to_owned();
        Ok(value(&text, "vmint_clone_private_bytes") > 0.0)
    })
    .await?;
    promtool(&text).await?;
    for wanted in [
        "vmint_checkout_seconds_bucket{template=\"default\",source=\"pool\",outcome=\"ok\",le=\"0.00005\"}",
        "vmint_startup_phase_seconds_count{template=\"default\",path=\"cold\",phase=\"total\"}",
        "vmint_startup_phase_seconds_count{template=\"default\",path=\"cold\",phase=\"first_exec\"}",
        "vmint_startup_phase_seconds_count{template=\"default\",path=\"clone\",phase=\"identity\"}",
        "vmint_startup_phase_seconds_count{template=\"default\",path=\"clone\",phase=\"first_exec\"}",
        "vmint_pool_vms{template=\"default\",state=\"ready\"} 2",
        "vmint_template_info{template=\"default\"",
        "process_open_fds",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(wanted)),
            "no {wanted}"
        );
    }
    let shared = value(&text, "vmint_template_memory_bytes");
    let private = value(&text, "vmint_clone_private_bytes");
    assert!(
        (256.0..300.0).contains(&(shared / 1048576.0)),
        "shared {shared}"
    );
    assert!(
        (10.0..200.0).contains(&(private / 1048576.0)),
        "private {private}"
    );
    real_prometheus(service).await
}

fn value(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find(|line| line.starts_with(name) && line.contains("default"));
    line.and_then(|line| line.rsplit(' ').next())
        .and_then(|value| value.parse().ok())
        .unwrap_or(f64::NAN)
}

async fn promtool(text: &str) -> anyhow::Result<()> {
    let mut check = Command::new("promtool");
    check
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = check.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes()).await?;
    }
    let out = child.wait_with_output().await?;
    let said = [out.stdout, out.stderr].concat();
    anyhow::ensure!(
        out.status.success() && said.is_empty(),
        "promtool: {}",
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

/// Starts a Prometheus that scrapes the service's TCP port.
async fn real_prometheus(service: &mut Service<'_>) -> anyhow::Result<()> {
    let target = format!("127.0.0.1:{}", service.place.port);
    let folder = service.place.folder.join("prometheus");
    std::fs::create_dir(&folder)?;
    let config = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
         scrape_configs: [{{job_name: vmint, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    std::fs::write(folder.join("prometheus.yml"), config)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!(
        "--config.file={}",
        folder.join("prometheus.yml").display()
    ));
    prometheus.arg(format!(
        "--storage.tsdb.path={}",
        folder.join("data").display()
    ));
    prometheus.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let mut prometheus = prometheus
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let answer = until_scraped(port).await;
    prometheus.kill().await?;
    answer
}

/// Asks Prometheus until it knows how many sandboxes were checked out of the pool.
async fn until_scraped(port: u16) -> anyhow::Result<()> {
    let query = "sum(vmint_checkouts_total{outcome=\"ok\"})";
    let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    eventually("Prometheus knows of 20 checkouts", LONG, async || {
        let answer = ask(port, &format!("/api/v1/query?query={query}")).await?;
        let count = answer["data"]["result"][0]["value"][1].as_str();
        let count = count.with_context(|| format!("no count in {answer}"))?;
        Ok(count.parse::<f64>()? >= 20.0)
    })
    .await
}

async fn ask(port: u16, path: &str) -> anyhow::Result<serde_json::Value> {
    use http_body_util::{BodyExt, Empty};
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "localhost")
        .body(Empty::<hyper::body::Bytes>::new())?;
    let body = sender
        .send_request(request)
        .await?
        .into_body()
        .collect()
        .await?
        .to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
