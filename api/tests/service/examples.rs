//! The example runtimes of `docs/examples`, run as their readers would run them.

use std::path::Path;

use anyhow::Context;
use serde_json::json;
use tokio::process::Command;

use crate::service::{LONG, Service};

/// What is run in the sandbox: all that the examples bind at checkout is there, and the command's own end comes back.
const SCRIPT: &str =
    "hostname; echo $JOB; cat /run/job/note; stat -c %a /run/job/note; echo no >&2; exit 3";

/// Both runtimes do their job and leave nothing.
pub async fn run(service: &mut Service<'_>) -> anyhow::Result<()> {
    let programs = Path::new(env!("CARGO_BIN_EXE_vmint"))
        .parent()
        .context("the program is in a folder")?;
    build_in_rust(programs).await?;
    let in_rust = programs.join("examples/runtime");
    let in_python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/runtime.py");
    let url = format!("http://127.0.0.1:{}", service.place.port);
    for example in [in_rust, in_python] {
        let mut command = Command::new(&example);
        command.args(["--url", &url, "sh", "-c", SCRIPT]);
        let ran = tokio::time::timeout(LONG, command.kill_on_drop(true).output())
            .await?
            .with_context(|| format!("{} cannot be run", example.display()))?;
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(3), "{}: {said}", example.display());
        assert_eq!(
            String::from_utf8_lossy(&ran.stdout),
            "job-17\n17\nwritten at checkout\n600\n",
            "{}: {said}",
            example.display()
        );
        assert!(said.ends_with("no\n"), "{}: {said}", example.display());
        let left = service.get("/v1/sandboxes").await?;
        assert_eq!(left, json!({"sandboxes": []}), "{}", example.display());
    }
    Ok(())
}

/// Cargo builds a package's examples with its tests only when all of them are asked for.
async fn build_in_rust(programs: &Path) -> anyhow::Result<()> {
    let target = programs.parent().context("a profile is in a folder")?;
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--locked", "--quiet", "--example", "runtime"]);
    command
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .arg("--target-dir")
        .arg(target);
    let built = command.kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&built.stderr);
    anyhow::ensure!(built.status.success(), "the example does not build: {said}");
    Ok(())
}
