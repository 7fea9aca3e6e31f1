//! The program itself: exit codes, and what it prints.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::listeners::Listening;

/// The program, apart from whatever this machine has configured.
pub(crate) fn vmint(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmint"));
    command
        .args(args)
        .env_remove("VMINT_URL")
        .env_remove("VMINT_LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

pub(crate) async fn run(args: &[&str]) -> (i32, String, String) {
    ended(vmint(args).output().await.unwrap())
}

pub(crate) fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A client command to a service.
pub(crate) async fn at(service: &Listening, args: &[&str]) -> (i32, String, String) {
    let url = format!("unix:{}", service.socket.display());
    ended(vmint(args).env("VMINT_URL", url).output().await.unwrap())
}

fn configuration(dir: &Path, text: &str) -> String {
    let path = dir.join("vmint.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn wrong_usage_is_2() {
    for args in [
        ["frobnicate"].as_slice(),
        &[],
        &["checkout", "--ttl", "soon"],
        &["checkout", "--memory", "much"],
        &["exec", "id"],
        &["exec", "-it", "id", "--", "sh"],
        &["exec", "-t", "--json", "id", "--", "sh"],
        &["cp", "a", "b"],
        &["cp", "id:/a", "id:/b"],
        &["cp", "-", "-"],
        &["cp", "id:a", "b"],
        &["release"],
        &["pool", "resize", "default"],
        &["ps", "--url", "ftp://x"],
        &["ps", "--log-level", "=?"],
    ] {
        let (code, _, err) = run(args).await;
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(!err.is_empty());
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_69_and_named() {
    for (url, args) in [
        ("http://127.0.0.1:1", ["ps"].as_slice()),
        ("unix:/nonexistent/api.sock", &["checkout"]),
        ("unix:/nonexistent/api.sock", &["exec", "id", "--", "true"]),
        ("unix:/nonexistent/api.sock", &["release", "id"]),
    ] {
        let (code, _, err) = run(&[&["--url", url], args].concat()).await;
        assert_eq!(code, 69, "{err}");
        assert!(err.contains(url) && err.contains("vmint serve"), "{err}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_64_with_every_problem() {
    let dir = tempfile::tempdir().unwrap();
    let file = configuration(
        dir.path(),
        "colour = 1\n[templates.default.pool]\ntarget = 9\nmax = 3",
    );
    for command in [["config", "check"].as_slice(), &["serve"]] {
        let (code, _, err) = run(&[command, &["--config", &file]].concat()).await;
        assert_eq!(code, 64, "{err}");
        assert!(
            err.contains("colour") && err.contains("target") && err.contains("mend:"),
            "{err}"
        );
    }
    let (code, _, err) = run(&[
        "config",
        "check",
        "--config",
        &configuration(dir.path(), "a = = 1"),
    ])
    .await;
    assert_eq!(code, 64, "{err}");
    let (code, _, err) = run(&["config", "check", "--config", "/nonexistent.toml"]).await;
    assert_eq!(code, 64, "{err}");
}

#[tokio::test]
async fn what_the_configuration_names_and_nobody_has_is_64() {
    let dir = tempfile::tempdir().unwrap();
    for guest in ["vmlinuz", "initrd.img"] {
        std::fs::write(dir.path().join(guest), "x").unwrap();
    }
    let host = |lines: &str| configuration(dir.path(), &format!("[host]\n{lines}\n"));
    let check = async |file: &str| {
        let mut command = vmint(&["config", "check", "--config", file]);
        ended(
            command
                .env("VMINT_GUEST_DIR", dir.path())
                .output()
                .await
                .unwrap(),
        )
    };
    let (code, _, err) = check(&host("qemu = \"/nonexistent/qemu\"")).await;
    assert!(code == 64 && err.contains("host.qemu"), "{err}");
    let (code, _, err) = check(&host("run_dir = \"/x\"\ntemplate_path = \"/x\"")).await;
    assert!(code == 64 && err.contains("host.template_path"), "{err}");
    if nix::unistd::geteuid().is_root() {
        let (code, _, err) = check(&host("qemu_user = \"vmint-no-such-user\"")).await;
        assert!(code == 64 && err.contains("host.qemu_user"), "{err}");
        let (code, _, err) = check(&host("build_user = \"vmint-no-such-user\"")).await;
        assert!(code == 64 && err.contains("host.build_user"), "{err}");
    }
}

#[tokio::test]
async fn a_client_does_not_guess_past_a_wrong_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = configuration(dir.path(), "colour = 1");
    let (code, _, err) = run(&["ps", "--config", &file]).await;
    assert!(code == 64 && err.contains("colour"), "{err}");
    // With the service named there is nothing to read.
    let args = [
        "ps",
        "--config",
        &file,
        "--url",
        "unix:/nonexistent/api.sock",
    ];
    assert_eq!(run(&args).await.0, 69);
    // A host that has no guest can still be a client.
    let good = configuration(dir.path(), "[host]\nrun_dir = \"/nonexistent\"");
    assert_eq!(run(&["ps", "--config", &good]).await.0, 69);
}

#[tokio::test]
async fn the_default_file_can_be_shown_saved_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (code, shown, _) = run(&["config", "show"]).await;
    assert_eq!((code, shown.as_str()), (0, vmint_api::config::DEFAULT_FILE));
    std::fs::write(dir.path().join("vmlinuz"), "x").unwrap();
    std::fs::write(dir.path().join("initrd.img"), "x").unwrap();
    let file = configuration(dir.path(), &shown);
    let checked = vmint(&["config", "check", "--config", &file])
        .env("VMINT_GUEST_DIR", dir.path())
        .output();
    assert_eq!(
        ended(checked.await.unwrap()),
        (0, "ok\n".to_owned(), String::new())
    );
    let effective = vmint(&["config", "show", "--config", &file])
        .env("VMINT_GUEST_DIR", dir.path())
        .output();
    let (code, effective, _) = ended(effective.await.unwrap());
    assert_eq!(code, 0);
    assert!(
        effective.contains(&format!("kernel = \"{}/vmlinuz\"", dir.path().display())),
        "{effective}"
    );
}

#[tokio::test]
async fn a_sandbox_from_checkout_to_release() {
    let service = Listening::start().await;
    let (code, id, err) = at(
        &service,
        &["checkout", "-q", "--ttl", "5m", "--hostname", "job-17"],
    )
    .await;
    assert_eq!(code, 0, "{err}");
    let id = id.trim_end();
    assert!(
        !id.contains(char::is_whitespace),
        "-q prints the id alone: {id:?}"
    );

    let (code, text, _) = at(&service, &["ps"]).await;
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!((code, lines.len()), (0, 2), "{text}");
    assert_eq!(lines[0][..4], ["ID", "TEMPLATE", "SOURCE", "HOSTNAME"]);
    assert_eq!(lines[1][..4], [id, "default", "pool", "job-17"]);
    assert_eq!(lines[1][5..7], ["1", "256MiB"], "{text}");
    let (_, json, _) = at(&service, &["ps", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["sandboxes"][0]["id"], id);
    let (code, text, _) = at(&service, &["inspect", id]).await;
    assert!(code == 0 && text.contains("job-17"), "{text}");
    let (code, text, _) = at(&service, &["console", id]).await;
    assert_eq!((code, text.as_str()), (0, "[    0.000000] Linux\n"));
    let (code, text, _) = at(&service, &["renew", id, "--ttl", "1h"]).await;
    assert!(code == 0 && text.contains("expires at"), "{text}");

    assert_eq!(at(&service, &["release", id]).await.0, 0);
    let (code, _, err) = at(&service, &["release", id]).await;
    assert!(code == 1 && err.contains("unknown_sandbox"), "{err}");
    let (code, _, err) = at(&service, &["inspect", id]).await;
    assert!(code == 1 && err.contains("unknown_sandbox"), "{err}");
    let (code, _, err) = at(&service, &["checkout", "nope"]).await;
    assert!(code == 1 && err.contains("unknown_template"), "{err}");
    let (code, _, err) = at(&service, &["checkout", "--vcpus", "5"]).await;
    assert!(code == 1 && err.contains("vcpus"), "{err}");
}

#[tokio::test]
async fn exec_exits_as_docker_exec_does() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    for (argv, code) in [
        (["true"].as_slice(), 0),
        (&["exit", "3"], 3),
        (&["signal"], 137),
        (&["missing"], 127),
        (&["locked"], 126),
        (&["slow"], 125),
        (&["mute"], 125),
    ] {
        let (got, _, err) = at(&service, &[&["exec", &id, "--"], argv].concat()).await;
        assert_eq!(got, code, "{argv:?}: {err}");
    }
    let (code, _, err) = at(&service, &["exec", "nope", "--", "true"]).await;
    assert!(code == 125 && err.contains("unknown_sandbox"), "{err}");
    let (_, out, err) = at(&service, &["exec", &id, "--", "echo", "-n", "--json"]).await;
    assert_eq!((out.as_str(), err.as_str()), ("-n --json\n", "err\n"));
    let (_, out, _) = at(&service, &["exec", "-e", "K=v", "-w", "/tmp", &id, "env"]).await;
    assert_eq!(out, r#"{"K": "v"} Some("/tmp")"#);
    let (_, json, _) = at(&service, &["exec", "--json", &id, "--", "echo"]).await;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["exit_code"],
        0
    );
}

#[tokio::test]
async fn exec_passes_bytes_as_they_are() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let url = format!("http://{}", service.address);
    let mut child = vmint(&["--url", &url, "exec", "-i", &id, "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&bytes).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success() && output.stdout == bytes);
}

#[tokio::test]
async fn templates_and_pools_are_shown_and_changed() {
    let service = Listening::start().await;
    let (code, text, _) = at(&service, &["template", "ls"]).await;
    assert!(
        code == 0 && text.contains("default") && text.contains("ready"),
        "{text}"
    );
    assert_eq!(at(&service, &["template", "show", "default"]).await.0, 0);
    let (code, out, err) = at(&service, &["template", "rebuild", "default"]).await;
    assert!(code == 0 && out.starts_with("built "), "{out}{err}");
    service
        .harness
        .factory
        .builds_fail
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let (code, out, err) = at(&service, &["template", "rebuild", "default"]).await;
    assert!(code == 1 && out.contains("did not answer"), "{out}{err}");
    let (code, out, _) = at(&service, &["pool", "resize", "default", "--target", "3"]).await;
    assert!(code == 0 && out.contains("default"), "{out}");
    let (code, out, _) = at(&service, &["pool", "ls", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["pools"][0]["target"]),
        (0, &serde_json::json!(3))
    );
    let (code, _, err) = at(&service, &["pool", "resize", "default", "--target", "99"]).await;
    assert!(code == 1 && err.contains("not_possible"), "{err}");
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_error() {
    let service = Listening::start().await;
    let url = format!("unix:{}", service.socket.display());
    let mut child = vmint(&["--url", &url, "pool", "ls"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (_, _, err) = ended(child.wait_with_output().await.unwrap());
    assert_eq!(err, "");
}
