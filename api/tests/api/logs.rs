//! Logs: a service goes on whatever becomes of the reader of its standard error. Each service is a process of its own,
//! which is this program again.

use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::process::Child;
use tokio::time::timeout;
use vmint_api::telemetry::{LogFormat, dropped_log_lines, flush_logs, log_panics, start_logs};

use crate::support::{Harness, request};

/// Names the part that a process of this test plays.
const PART: &str = "VMINT_TEST_LOGS";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Requests whose log lines fill the pipe and the queue: two lines each at least.
const REQUESTS: usize = 5000;

/// Starts this test again in a process that plays `part`.
fn start(part: &str) -> Child {
    let this = "logs::a_reader_of_the_logs_stops_nothing";
    tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .kill_on_drop(true)
        .env(PART, part)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for its end, and reads nothing meanwhile.
async fn ended(child: &mut Child) -> ExitStatus {
    let status = timeout(PATIENCE, child.wait()).await;
    status.expect("it hangs").unwrap()
}

async fn play(part: &str) {
    let level = if part == "panics" { "info" } else { "trace" };
    start_logs(LogFormat::Json, level).unwrap();
    log_panics();
    let harness = Harness::start().await;
    match part {
        "panics" => panic_in_a_handler(&harness).await,
        _ => log_much(&harness).await,
    }
    flush_logs();
}

async fn log_much(harness: &Harness) {
    for _ in 0..REQUESTS {
        harness.get("/v1/pools").await.ok(200);
    }
    assert!(dropped_log_lines() > 0, "more than fits was logged");
    // Leases end, and the loss can be seen.
    harness
        .post("/v1/sandboxes", json!({"ttl_s": 1}))
        .await
        .ok(201);
    harness
        .until("the lease has ended", || {
            harness.cache.sandboxes(None).is_empty()
        })
        .await;
    let metrics = harness.get("/metrics").await;
    let dropped = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("vmint_log_lines_dropped_total "))
        .unwrap();
    assert!(dropped.parse::<u64>().unwrap() > 0, "{dropped}");
}

async fn panic_in_a_handler(harness: &Harness) {
    let id = harness.checkout().await;
    let path = format!("/v1/sandboxes/{id}/exec");
    let exec = request(Method::POST, &path)
        .header("content-type", "application/json")
        .header("x-request-id", "r-77")
        .body(Body::from(json!({"argv": ["panic"]}).to_string()))
        .unwrap();
    harness.send(exec).await.problem(500, "internal");
    harness.get("/healthz").await;
    let sandbox = format!("/v1/sandboxes/{id}");
    assert_eq!(harness.call(Method::DELETE, &sandbox).await.status, 204);
}

#[tokio::test]
async fn a_reader_of_the_logs_stops_nothing() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part).await;
    }
    let mut stalls = start("the reader stalls");
    let mut gone = start("the reader is gone");
    drop(gone.stderr.take());
    let status = ended(&mut stalls).await;
    let mut said = String::new();
    let mut stderr = stalls.stderr.take().unwrap();
    stderr.read_to_string(&mut said).await.unwrap();
    assert!(status.success(), "{status}: {said}");
    let status = ended(&mut gone).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_handlers_panic_is_a_500_and_a_line_with_the_request() {
    let output = timeout(PATIENCE, start("panics").wait_with_output()).await;
    let output = output.expect("it hangs").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let lines = said.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let lines: Vec<_> = lines.collect();
    for line in &lines {
        for name in ["timestamp", "level", "message", "target"] {
            assert!(line[name].is_string(), "{name}: {line}");
        }
    }
    let panic = lines
        .iter()
        .find(|line| line["message"] == "a part of the service panicked")
        .unwrap();
    assert_eq!(panic["request_id"], "r-77", "{panic}");
    assert_eq!(panic["level"], "ERROR");
    assert!(panic["sandbox"].is_string(), "{panic}");
    let text = panic["fields"]["panic"].as_str().unwrap();
    assert!(text.contains("the script says so"), "{panic}");
    // What a pool and a keeper say has their template.
    let of_template = |line: &&Value| line["template"] == "default";
    assert!(lines.iter().any(|line| of_template(&line)), "{said}");
}

#[test]
fn a_service_that_does_not_start_says_so_in_the_format_of_its_logs() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_vmint"));
    program.args(["--log-format", "json", "serve", "--config", "/nonexistent"]);
    let output = program.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said}")))
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR", "{said}");
    let message = last["message"].as_str().unwrap();
    assert!(message.contains("/nonexistent"), "{said}");
}

#[test]
fn the_last_words_of_a_service_and_its_guardian_need_no_reader() {
    let nowhere = "/nonexistent/vmint";
    for (args, code) in [
        (&["serve", "--config", nowhere][..], 64),
        (
            &[
                "guard-leases",
                "--run-dir",
                nowhere,
                "--hypervisor-uid",
                "1",
                "--build-uid",
                "1",
            ][..],
            1,
        ),
    ] {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let full = std::fs::File::options().write(true).open("/dev/full");
        for stderr in [Stdio::from(closed), Stdio::from(full.unwrap())] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_vmint"));
            program.args(args).stdin(Stdio::null()).stderr(stderr);
            let status = program.status().unwrap();
            assert_eq!(status.code(), Some(code), "{args:?}");
        }
    }
}
