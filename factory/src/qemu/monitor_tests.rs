//! The monitor against a scripted QEMU at a real socket.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::monitor::Qmp;
use crate::driver::{Monitor, MonitorError};

const LONG: Duration = Duration::from_secs(30);

/// What a scripted QEMU does with one command.
pub(super) enum Reaction {
    /// Says these lines; `ID` stands for the request's id.
    Say(Vec<String>),
    /// Ends.
    Exit,
}

pub(super) fn say<const N: usize>(lines: [&str; N]) -> Reaction {
    Reaction::Say(lines.map(str::to_owned).into())
}

pub(super) const OK: &str = r#"{"return": {}, "id": ID}"#;
const COMPLETED: &str =
    r#"{"event": "MIGRATION", "data": {"status": "completed"}, "timestamp": {}}"#;
const ACTIVE: &str = r#"{"event": "MIGRATION", "data": {"status": "active"}, "timestamp": {}}"#;
const FAILED: &str = r#"{"event": "MIGRATION", "data": {"status": "failed"}, "timestamp": {}}"#;

/// Plays a QEMU that reacts to each command in turn, after the negotiation. Answers the commands that it saw.
fn play(socket: UnixStream, script: Vec<Reaction>) -> JoinHandle<anyhow::Result<Vec<String>>> {
    tokio::spawn(async move {
        let mut socket = BufReader::new(socket);
        socket
            .write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n")
            .await?;
        let mut seen = Vec::new();
        let mut script = script.into_iter();
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await? == 0 {
                return Ok(seen);
            }
            let request: Value = serde_json::from_str(&line)?;
            let name = request["execute"].as_str().unwrap_or_default().to_owned();
            let reaction = match name.as_str() {
                "qmp_capabilities" => say([OK]),
                _ => script.next().unwrap_or(Reaction::Say(Vec::new())),
            };
            seen.push(line);
            match reaction {
                Reaction::Say(lines) => {
                    for line in lines {
                        let line = line.replace("ID", &request["id"].to_string());
                        socket.write_all(format!("{line}\r\n").as_bytes()).await?;
                    }
                }
                Reaction::Exit => return Ok(seen),
            }
        }
    })
}

pub(super) async fn qmp(
    script: Vec<Reaction>,
) -> anyhow::Result<(Qmp, JoinHandle<anyhow::Result<Vec<String>>>)> {
    let (ours, theirs) = UnixStream::pair()?;
    let peer = play(theirs, script);
    Ok((Qmp::over(ours, LONG, true).await?, peer))
}

#[tokio::test]
async fn a_save_ends_with_its_event_whenever_that_comes() -> anyhow::Result<()> {
    // The event may come before the reply to the command that causes it.
    for lines in [[OK, ACTIVE, COMPLETED], [ACTIVE, COMPLETED, OK]] {
        let (qmp, peer) = qmp(vec![say(lines)]).await?;
        qmp.save(LONG).await?;
        drop(qmp);
        let seen = peer.await??;
        assert!(
            seen[1].contains(r#""execute":"migrate","arguments":{"uri":"file:/dev/fdset/7"}"#),
            "{}",
            seen[1]
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_failed_load_says_why() -> anyhow::Result<()> {
    let why = r#"{"return": {"status": "failed", "error-desc": "section mismatch", "new-field": 1}, "id": ID}"#;
    let (qmp, peer) = qmp(vec![say([OK, FAILED]), say([why])]).await?;
    let error = qmp.load(LONG).await.expect_err("the script fails it");
    assert_eq!(error.to_string(), "loading failed: section mismatch");
    drop(qmp);
    assert!(peer.await??[1].contains(r#""exit-on-error":false"#));
    Ok(())
}

#[tokio::test]
async fn a_qemu_that_ends_while_it_loads_is_a_failed_load() -> anyhow::Result<()> {
    let (qmp, _peer) = qmp(vec![Reaction::Exit]).await?;
    let error = qmp.load(LONG).await.expect_err("the peer is gone");
    assert!(
        matches!(
            error,
            MonitorError::Migration {
                action: "loading",
                ..
            } | MonitorError::Command { .. }
        ),
        "{error}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_silent_migration_ends_at_its_deadline() -> anyhow::Result<()> {
    let (qmp, _peer) = qmp(vec![say([OK, ACTIVE])]).await?;
    let error = qmp
        .save(Duration::from_secs(5))
        .await
        .expect_err("nothing ever completes");
    assert_eq!(error.to_string(), "saving did not end within 5 s");
    Ok(())
}

#[tokio::test]
async fn a_status_of_a_later_qemu_is_passed_over() -> anyhow::Result<()> {
    let strange = r#"{"event": "MIGRATION", "data": {"status": "hovering"}}"#;
    let lines = [OK, strange, COMPLETED];
    let (qmp, _peer) = qmp(vec![say(lines)]).await?;
    qmp.save(LONG).await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_command_is_named() -> anyhow::Result<()> {
    let refusal = r#"{"error": {"class": "GenericError", "desc": "not now"}, "id": ID}"#;
    let lines = [refusal];
    let (qmp, _peer) = qmp(vec![say(lines)]).await?;
    let error = qmp.resume().await.expect_err("the script refuses it");
    assert_eq!(error.to_string(), "cont: not now");
    Ok(())
}

#[tokio::test]
async fn capabilities_leave_the_memory_out_and_ask_for_events() -> anyhow::Result<()> {
    let (qmp, peer) = qmp(vec![say([OK])]).await?;
    qmp.set_migration_capabilities().await?;
    drop(qmp);
    let seen: Value = serde_json::from_str(&peer.await??[1])?;
    let wanted = json!([{"capability": "x-ignore-shared", "state": true}, {"capability": "events", "state": true}]);
    assert_eq!(seen["arguments"]["capabilities"], wanted);
    Ok(())
}
