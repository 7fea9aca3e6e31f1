//! `vmint exec -d`, `processes`, `attach` and `kill`.

use std::process::Stdio;
use std::sync::atomic::Ordering;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::listeners::Listening;
use crate::program::{at, run, vmint};
use crate::program_exec::text;
use crate::support::SOON;
use crate::support::terminal::Terminal;
use crate::support::waiting::seen;

fn client(service: &Listening, args: &[&str]) -> Command {
    let mut command = vmint(args);
    command.env("VMINT_URL", format!("unix:{}", service.socket.display()));
    command
}

/// A sandbox with a process in it.
async fn with_process(service: &Listening, args: &[&str]) -> (String, String) {
    let id = service.harness.checkout().await;
    let words = [&["exec", "-d"], &args[..1], &[id.as_str()], &args[1..]].concat();
    let (code, out, err) = at(service, &words).await;
    assert_eq!(code, 0, "{err}");
    (id, out.trim().to_owned())
}

async fn state(service: &Listening, id: &str, process: &str) -> Value {
    let path = format!("/v1/sandboxes/{id}/processes/{process}");
    service.harness.get(&path).await.ok(200)
}

async fn code(mut child: Child) -> Option<i32> {
    let status = timeout(SOON, child.wait()).await.expect("it ends");
    status.unwrap().code()
}

#[tokio::test]
async fn a_detached_command_prints_its_id_and_runs_on() {
    let service = Listening::start().await;
    let (id, process) = with_process(&service, &["-i", "live", "x"]).await;
    assert_eq!(process, "p1");
    let (_, out, _) = at(&service, &["exec", "-d", "--json", &id, "--", "echo", "hi"]).await;
    let started: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&started["id"], &started["argv"]),
        (&json!("p2"), &json!(["echo", "hi"]))
    );
    let quiet = ["exec", "-d", "--no-keep", "--timeout", "9s", &id, "live"];
    assert_eq!(at(&service, &quiet).await.1, "p3\n");
    let (code, out, _) = at(&service, &["processes", &id]).await;
    let lines: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!((code, lines.len()), (0, 4), "{out}");
    assert_eq!(lines[0][..4], ["ID", "STATE", "PID", "USER"]);
    assert_eq!(lines[1][..4], ["p1", "running", "101", "root"], "{out}");
    assert!(lines[1].ends_with(&["live", "x"]), "{out}");
    let (_, out, _) = at(&service, &["processes", "--json", &id]).await;
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed["processes"][2]["id"], "p3");
    // Only what cannot be started has the codes of an exec.
    let (code, _, err) = at(&service, &["exec", "-d", &id, "missing"]).await;
    assert!(code == 127 && err.contains("exec_failed"), "{code} {err}");
    let (code, _, err) = at(&service, &["exec", "-d", "nope", "echo"]).await;
    assert!(code == 125 && err.contains("unknown_sandbox"), "{err}");
    let (code, _, err) = at(&service, &["processes", "nope"]).await;
    assert!(code == 1 && err.contains("unknown_sandbox"), "{err}");
    let (code, _, err) = run(&["exec", "--no-keep", "id", "echo"]).await;
    assert!(code == 2 && err.contains("--detach"), "{err}");
}

#[tokio::test]
async fn what_is_attached_passes_everything_on_and_exits_as_the_process_does() {
    let service = Listening::start().await;
    let (id, process) = with_process(&service, &["-i", "live"]).await;
    let mut child = client(&service, &["attach", "--replay", &id, &process])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    text(&mut stdout, "\n").await;
    // An empty standard input, as programs in the background have it, leaves the process's open.
    let other = client(&service, &["attach", &id, &process])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let attached = async || {
        let attached = &state(&service, &id, &process).await["attached"];
        (*attached == 2).then_some(())
    };
    seen("both are attached", attached).await;
    stdin.write_all(b"one\n").await.unwrap();
    assert_eq!(text(&mut stdout, "\n").await, "one\n");
    drop(stdin);
    let output = timeout(SOON, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stderr, b"bye\n");
    let output = timeout(SOON, other.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(7), &b"one\n"[..])
    );
    let (code, out, err) = at(&service, &["attach", "--replay", &id, &process]).await;
    assert!(
        code == 7 && out.ends_with("one\n") && err == "bye\n",
        "{out}{err}"
    );
    let (_, out, _) = at(&service, &["attach", "--replay", "--json", &id, &process]).await;
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines[0]["stdout"].as_str().unwrap().ends_with("one\n"),
        "{out}"
    );
    assert_eq!(lines[1], json!({"stderr": "bye\n"}));
    assert_eq!(lines[2]["status"]["reason"], "NonZeroExitCode");
    for (args, code) in [
        (["nope", "p1"], "unknown_sandbox"),
        ([&id, "p9"], "not_found"),
    ] {
        let (exit, _, err) = at(&service, &[&["attach"][..], &args].concat()).await;
        assert!(exit == 125 && err.contains(code), "{exit} {err}");
    }
}

#[tokio::test]
async fn leaving_ends_nothing() {
    let service = Listening::start().await;
    let (id, process) = with_process(&service, &["-i", "deaf"]).await;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let words = ["attach", "--replay", "--no-stdin", &id, &process];
        let mut child = client(&service, &words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        text(&mut child.stdout.take().unwrap(), "ready").await;
        kill(
            Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()),
            signal,
        )
        .unwrap();
        timeout(SOON, child.wait()).await.unwrap().unwrap();
    }
    assert_eq!(state(&service, &id, &process).await["state"], "running");
    assert_eq!(
        service.harness.factory.guests.killed.load(Ordering::SeqCst),
        0
    );
}

#[tokio::test]
async fn a_terminal_is_left_with_its_keys_and_is_as_before() {
    let service = Listening::start().await;
    let (id, process) = with_process(&service, &["-it", "live"]).await;
    let mut terminal = Terminal::new(33, 111);
    let child = terminal.start(client(&service, &["attach", &id, &process]));
    terminal.shows("33x111").await;
    assert!(terminal.is_raw());
    // Control-C and a Control-P that is followed by another key are keys like any other.
    terminal.press(b"\x03\x10a");
    terminal.shows("\x03\x10a").await;
    terminal.resize(40, 120);
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(pid, Signal::SIGWINCH).unwrap();
    terminal.shows("40x120").await;
    terminal.press(b"\x10\x11");
    assert_eq!(code(child).await, Some(0));
    assert!(!terminal.is_raw());
    assert_eq!(state(&service, &id, &process).await["state"], "running");
    let child = terminal.start(client(&service, &["attach", "--replay", &id, &process]));
    terminal.shows("40x120").await;
    terminal.press(b"die\n");
    assert_eq!(code(child).await, Some(128 + 15));
    assert!(!terminal.is_raw());
}

#[tokio::test]
async fn a_signal_is_sent_by_name_or_number() {
    let service = Listening::start().await;
    for (options, number) in [(&[][..], 15), (&["-s", "SIGINT"], 2), (&["-s", "9"], 9)] {
        let (id, process) = with_process(&service, &["-i", "live"]).await;
        let words = [&["kill"], options, &[&*id, &process]].concat();
        let (code, out, err) = at(&service, &words).await;
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        let (code, _, _) = at(&service, &["attach", &id, &process]).await;
        assert_eq!(code, 128 + number);
        let (code, _, err) = at(&service, &words).await;
        assert!(code == 1 && err.contains("has ended"), "{err}");
    }
    let (id, process) = with_process(&service, &["-i", "live"]).await;
    let (code, _, err) = at(&service, &["kill", "-s", "NOPE", &id, &process]).await;
    assert!(code == 1 && err.contains("TERM"), "{err}");
    let (_, out, _) = at(&service, &["kill", "--json", &id, &process]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told, json!({"process": process, "signal": "TERM"}));
}
