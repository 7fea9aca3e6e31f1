//! A small runtime: runs one command in a fresh sandbox, over plain HTTP.
//!
//! ```text
//! cargo run --example runtime -- [--url http://127.0.0.1:7070] ARGV...
//! ```
//!
//! What a runtime has to get right, and where it is done here:
//!
//! - a checkout that is sent again must not check out twice: the same `Idempotency-Key` goes with every try
//!   ([`Service::checkout`]);
//! - a command is not sent again: it may have run;
//! - 429 and 503 say when to come back: `Retry-After` is waited for, within a deadline ([`Service::call`]);
//! - whatever happens, the sandbox is given back ([`Sandbox`]'s `Drop`), and a runtime that dies has a short lease.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long a checkout is tried again while the service says that that may help.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one request may take: longer than `wait_ms` and than the command's own deadline.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);

fn main() -> anyhow::Result<ExitCode> {
    let mut argv: Vec<String> = std::env::args().skip(1).collect();
    let mut url = "http://127.0.0.1:7070".to_owned();
    if argv.first().is_some_and(|word| word == "--url") && argv.len() > 1 {
        url = argv.drain(..2).nth(1).context("--url needs a value")?;
    }
    if argv.is_empty() {
        bail!("usage: runtime [--url URL] ARGV...");
    }
    let sandbox = Service::at(&url).checkout(&json!({
        "ttl_s": 60,
        "wait_ms": 5000,
        "hostname": "job-17",
        "env": {"JOB": "17"},
        "files": [{
            "path": "/run/job/note",
            "content_b64": BASE64_STANDARD.encode("written at checkout\n"),
            "mode": "0600",
        }],
        "metadata": {"runtime": "example-rs"},
    }))?;
    let leased = &sandbox.leased;
    eprintln!(
        "{} from the {} in {} ms",
        leased.id, leased.source, leased.checkout_ms
    );
    let ended = sandbox.exec(&argv)?;
    std::io::stdout().write_all(&ended.stdout)?;
    std::io::stderr().write_all(&ended.stderr)?;
    Ok(ExitCode::from(ended.status))
}

/// The service, and how it is spoken to.
struct Service {
    agent: ureq::Agent,
    url: String,
}

/// What this runtime needs of the answer to a checkout.
#[derive(Deserialize)]
struct Leased {
    id: String,
    source: String,
    checkout_ms: f64,
}

/// A sandbox, which is given back when it is dropped.
struct Sandbox {
    service: Service,
    leased: Leased,
}

/// How a command ended.
struct Ended {
    /// As a shell has it: the exit code, or 128 and the signal.
    status: u8,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Service {
    fn at(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            // A problem's body says what is wrong: it is wanted as well.
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT));
        Self {
            agent: config.build().into(),
            url: url.to_owned(),
        }
    }

    /// Checks a sandbox out. Sent twice, it is the same one: the key says that it is one request.
    fn checkout(self, wanted: &Value) -> anyhow::Result<Sandbox> {
        let key = uuid::Uuid::new_v4().to_string();
        let answer = self.call("POST", "/v1/sandboxes", Some(wanted), Some(&key))?;
        Ok(Sandbox {
            leased: serde_json::from_value(answer)?,
            service: self,
        })
    }

    /// One request. One that has a key is tried again while the service says that that may help.
    fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<Value> {
        let deadline = Instant::now() + key.map_or(Duration::ZERO, |_| PATIENCE);
        loop {
            let mut request = ureq::http::Request::builder()
                .method(method)
                .uri(format!("{}{path}", self.url));
            if let Some(key) = key {
                request = request.header("Idempotency-Key", key);
            }
            let mut response = match body {
                Some(body) => {
                    let request = request.header("Content-Type", "application/json");
                    self.agent.run(request.body(body.to_string())?)?
                }
                None => self.agent.run(request.body(())?)?,
            };
            let status = response.status().as_u16();
            let text = response.body_mut().read_to_string()?;
            if response.status().is_success() {
                // What has no content is null.
                return Ok(serde_json::from_str(&text).unwrap_or_default());
            }
            let pause = retry_after(response.headers());
            if !matches!(status, 429 | 502 | 503) || Instant::now() + pause > deadline {
                bail!("{method} {path}: {status} {text}");
            }
            std::thread::sleep(pause);
        }
    }
}

/// When to come back, as the service says.
fn retry_after(headers: &ureq::http::HeaderMap) -> Duration {
    let seconds = headers
        .get("Retry-After")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

impl Sandbox {
    /// Runs a command to its end.
    fn exec(&self, argv: &[String]) -> anyhow::Result<Ended> {
        let path = format!("/v1/sandboxes/{}/exec", self.leased.id);
        let body = json!({"argv": argv, "timeout_ms": 30_000});
        let ended = self.service.call("POST", &path, Some(&body), None)?;
        let code = ended["exit_code"].as_u64();
        let signal = ended["signal"].as_u64().unwrap_or_default();
        Ok(Ended {
            status: u8::try_from(code.unwrap_or(128 + signal))?,
            stdout: output(&ended, "stdout")?,
            stderr: output(&ended, "stderr")?,
        })
    }
}

/// A stream of a command as bytes: text where it was UTF-8, base64 where it was not.
fn output(ended: &Value, name: &str) -> anyhow::Result<Vec<u8>> {
    if let Some(text) = ended[name].as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let encoded = ended[format!("{name}_b64")].as_str().unwrap_or_default();
    Ok(BASE64_STANDARD.decode(encoded)?)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let path = format!("/v1/sandboxes/{}", self.leased.id);
        if let Err(error) = self.service.call("DELETE", &path, None, None) {
            // Its lease ends it.
            eprintln!("the sandbox was not released: {error:#}");
        }
    }
}
