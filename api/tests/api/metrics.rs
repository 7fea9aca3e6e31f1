//! Metrics as Prometheus' own tool reads them.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use http::Method;
use serde_json::json;

use crate::support::Harness;

/// Prometheus' own verdict. It comes with Debian's package `prometheus`; without it this test fails.
fn promtool_check(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: apt-get install prometheus");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let verdict = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&verdict.stdout).into_owned()
        + &String::from_utf8_lossy(&verdict.stderr);
    assert!(
        verdict.status.success() && said.is_empty(),
        "promtool says:\n{said}\nto:\n{text}"
    );
}

#[tokio::test]
async fn a_scrape_has_every_metric_of_the_contract_and_passes_promtool() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    harness
        .post(
            &format!("/v1/sandboxes/{id}/exec"),
            json!({"argv": ["echo"]}),
        )
        .await
        .ok(200);
    harness
        .post("/v1/sandboxes", json!({"template": "nope"}))
        .await
        .problem(404, "unknown_template");
    harness
        .call(Method::POST, "/v1/templates/default/rebuild?wait=true")
        .await
        .ok(200);
    harness
        .call(Method::DELETE, &format!("/v1/sandboxes/{id}"))
        .await;
    harness.get("/some/path").await.problem(404, "not_found");

    let reply = harness.get("/metrics").await;
    assert!(
        reply
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let text = reply.text();
    promtool_check(text);
    for line in [
        r#"vmint_checkout_seconds_bucket{template="default",source="pool",outcome="ok",le="0.00005"}"#,
        r#"vmint_checkout_seconds_bucket{template="default",source="pool",outcome="ok",le="60"}"#,
        r#"vmint_startup_phase_seconds_count{template="default",path="clone",phase="total"}"#,
        r#"vmint_startup_phase_seconds_count{template="default",path="cold",phase="total"}"#,
        r#"vmint_startup_phase_seconds_count{template="default",path="clone",phase="first_exec"} 1"#,
        r#"vmint_exec_seconds_count{template="default",outcome="ok"} 1"#,
        r#"vmint_http_request_seconds_count{method="POST",route="/v1/sandboxes/{id}/exec",status="200"} 1"#,
        r#"vmint_http_request_seconds_count{method="GET",route="none",status="404"} 1"#,
        r#"vmint_pool_vms{template="default",state="launching"}"#,
        r#"vmint_pool_vms{template="default",state="ready"}"#,
        r#"vmint_pool_vms{template="default",state="leased"} 0"#,
        r#"vmint_pool_vms{template="default",state="releasing"}"#,
        r#"vmint_pool_target{template="default"} 2"#,
        r#"vmint_pool_waiters{template="default"} 0"#,
        r#"vmint_checkouts_total{template="default",source="pool",outcome="ok"} 1"#,
        r#"vmint_clone_failures_total{template="default",phase="load"} 0"#,
        r#"vmint_template_build_seconds_count{template="default",outcome="ok"} 1"#,
        r#"vmint_template_info{template="default",generation=""#,
        r#"vmint_template_built_timestamp_seconds{template="default"}"#,
        r#"vmint_template_stale{template="default"} 0"#,
        r#"vmint_template_memory_bytes{template="default"}"#,
        r#"vmint_clone_private_bytes{template="default"}"#,
        "vmint_memory_admitted_bytes",
        r#"vmint_build_info{version=""#,
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    assert!(!text.contains(&id), "an id became a label");
    let infos = text
        .lines()
        .filter(|line| line.starts_with("vmint_template_info{"))
        .count();
    assert_eq!(infos, 1, "the generation before the rebuild is still shown");
}

/// Measuring one takes a millisecond, and is done beside every two seconds.
#[tokio::test]
async fn scrapes_do_not_measure_the_memory_of_clones() {
    const SCRAPES: usize = 100;
    let harness = Harness::start().await;
    let measured = || harness.factory.measured.load(Ordering::SeqCst);
    let is_measured = || measured() >= 2;
    harness.until("both clones are measured", is_measured).await;
    let before = measured();
    for _ in 0..SCRAPES {
        assert_eq!(harness.get("/metrics").await.status, 200);
    }
    let times = measured() - before;
    assert!(times < SCRAPES, "{times} times for {SCRAPES} scrapes");
}
