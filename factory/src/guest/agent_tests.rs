//! The agent's channel against scripted agents at a real socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::agent::{Agent, AgentKind};
use super::identity::IdentityOrder;
use super::{BindError, Binding, ExecError, ExecRequest, GuestError, Identity};
use crate::clock::WallNs;

const LONG: Duration = Duration::from_secs(30);

/// A listening socket, and the folder that it is in.
pub(in crate::guest) struct Port {
    _folder: tempfile::TempDir,
    pub(in crate::guest) path: PathBuf,
    listener: UnixListener,
}

pub(in crate::guest) fn port() -> std::io::Result<Port> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path)?;
    Ok(Port {
        _folder: folder,
        path,
        listener,
    })
}

/// A port that nobody closes.
pub(in crate::guest) fn never_lost() -> watch::Receiver<u64> {
    watch::channel(0).1
}

/// The next request on a connection; bytes that are no line of JSON are skipped, as an agent does.
pub(in crate::guest) async fn request(socket: &mut UnixStream) -> anyhow::Result<Value> {
    let mut line = Vec::new();
    loop {
        let byte = socket.read_u8().await?;
        match byte {
            b'\n' => return Ok(serde_json::from_slice(&line)?),
            0xff => line.clear(),
            byte => line.push(byte),
        }
    }
}

/// Answers a synchronization, after whatever an earlier conversation has left.
async fn synchronize(socket: &mut UnixStream, left_over: &[u8]) -> anyhow::Result<()> {
    let sync = request(socket).await?;
    anyhow::ensure!(sync["execute"] == "guest-sync-delimited", "{sync}");
    let answer = json!({"return": sync["arguments"]["id"], "id": sync["id"]});
    socket.write_all(left_over).await?;
    socket.write_all(b"\0").await?;
    socket.write_all(&[0xff]).await?;
    Ok(socket.write_all(format!("{answer}\n").as_bytes()).await?)
}

pub(in crate::guest) async fn connected(
    port: &Port,
    kind: AgentKind,
    left_over: &[u8],
) -> anyhow::Result<(Agent, UnixStream)> {
    let agent = tokio::spawn({
        let path = port.path.clone();
        async move { Agent::connect(&path, kind, &never_lost(), Instant::now() + LONG).await }
    });
    let (mut socket, _) = port.listener.accept().await?;
    synchronize(&mut socket, left_over).await?;
    Ok((agent.await??, socket))
}

#[tokio::test]
async fn the_rest_of_the_templates_conversation_is_skipped() -> anyhow::Result<()> {
    let port = port()?;
    let left_over = b"\"out-data\": \"aGFsZg==\"}}\n{\"return\": {\"pid\": 7}}\n{\"retu";
    let (agent, mut socket) = connected(&port, AgentKind::QemuGa, left_over).await?;
    let ping = tokio::spawn(async move { agent.ping(LONG).await });
    let asked = request(&mut socket).await?;
    socket
        .write_all(format!("{}\n", json!({"return": {}, "id": asked["id"]})).as_bytes())
        .await?;
    ping.await??;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_answers_is_given_up_at_the_deadline() -> anyhow::Result<()> {
    let port = port()?;
    let deadline = Duration::from_secs(12);
    let error = Agent::connect(
        &port.path,
        AgentKind::QemuGa,
        &never_lost(),
        Instant::now() + deadline,
    )
    .await;
    let error = error.expect_err("nobody answers");
    assert_eq!(
        error.to_string(),
        "the guest agent did not answer guest-sync-delimited within 12 s"
    );
    Ok(())
}

#[tokio::test]
async fn an_agent_that_was_restarted_is_dialled_again() -> anyhow::Result<()> {
    let port = port()?;
    let path = port.path.clone();
    let agent = tokio::spawn(async move {
        Agent::connect(
            &path,
            AgentKind::QemuGa,
            &never_lost(),
            Instant::now() + LONG,
        )
        .await
    });
    // The first agent takes the request with it.
    let (mut first, _) = port.listener.accept().await?;
    request(&mut first).await?;
    let (mut second, _) = port.listener.accept().await?;
    synchronize(&mut second, b"").await?;
    agent.await??;
    Ok(())
}

#[tokio::test]
async fn the_kind_of_an_agent_is_what_it_can_do() -> anyhow::Result<()> {
    for (command, kind) in [
        ("vmint-identity", AgentKind::VmintAgent),
        ("guest-exec", AgentKind::QemuGa),
    ] {
        let port = port()?;
        let (agent, mut socket) = connected(&port, AgentKind::QemuGa, b"").await?;
        let detected = tokio::spawn(agent.detect());
        let asked = request(&mut socket).await?;
        let info =
            json!({"version": "1", "supported_commands": [{"name": command, "enabled": true}]});
        socket
            .write_all(format!("{}\n", json!({"return": info, "id": asked["id"]})).as_bytes())
            .await?;
        assert_eq!(detected.await??.kind(), kind);
    }
    Ok(())
}

#[tokio::test]
async fn a_stock_agent_runs_the_helper_and_is_asked_until_it_has_ended() -> anyhow::Result<()> {
    let port = port()?;
    let (agent, mut socket) = connected(&port, AgentKind::QemuGa, b"").await?;
    let run = tokio::spawn(async move {
        agent
            .exec(&ExecRequest::new(
                vec!["nothing".into()],
                Duration::from_secs(5),
            ))
            .await
    });
    let exec = request(&mut socket).await?;
    assert_eq!(exec["arguments"]["path"], "/usr/lib/vmint/helper");
    let started = json!({"return": {"pid": 42}, "id": exec["id"]});
    socket.write_all(format!("{started}\n").as_bytes()).await?;
    let running = request(&mut socket).await?;
    assert_eq!(running["arguments"]["pid"], 42);
    socket
        .write_all(
            format!(
                "{}\n",
                json!({"return": {"exited": false}, "id": running["id"]})
            )
            .as_bytes(),
        )
        .await?;
    let ended = request(&mut socket).await?;
    let trailer = "\u{0}vmint-run {\"exit_code\":null,\"signal\":null,\"stdout_truncated\":false,\"stderr_truncated\":false,\
                   \"timed_out\":false,\"spawn_error\":{\"errno\":2,\"message\":\"No such file or directory\"}}\u{0}";
    let stderr = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, trailer);
    let status =
        json!({"return": {"exited": true, "exitcode": 0, "err-data": stderr}, "id": ended["id"]});
    socket.write_all(format!("{status}\n").as_bytes()).await?;
    let outcome = run.await?;
    assert!(
        matches!(outcome, Err(ExecError::Spawn { errno: 2, .. })),
        "{outcome:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_is_cancelled_and_keeps_its_turn_until_then()
-> anyhow::Result<()> {
    let port = port()?;
    let (agent, mut socket) = connected(&port, AgentKind::VmintAgent, b"").await?;
    let turns = Arc::new(Semaphore::new(1));
    let turn = Arc::clone(&turns).try_acquire_owned()?;
    let request_ = ExecRequest::new(vec!["sleep".into()], LONG);
    let running = tokio::spawn(async move { agent.exec_in_turn(&request_, Some(turn)).await });
    let exec = request(&mut socket).await?;
    assert_eq!(exec["execute"], "vmint-exec");
    running.abort();
    let cancel = request(&mut socket).await?;
    assert_eq!(cancel["execute"], "vmint-cancel");
    assert_eq!(cancel["arguments"]["request"], exec["id"]);
    assert_eq!(turns.available_permits(), 0);
    socket
        .write_all(
            format!(
                "{}\n",
                json!({"return": {"found": true}, "id": cancel["id"]})
            )
            .as_bytes(),
        )
        .await?;
    drop(tokio::time::timeout(LONG, turns.acquire()).await??);
    Ok(())
}

#[tokio::test]
async fn an_agent_that_ends_is_noticed_by_those_who_wait_for_it() -> anyhow::Result<()> {
    let port = port()?;
    let (lose, losses) = watch::channel(0);
    let path = port.path.clone();
    let agent = tokio::spawn(async move {
        Agent::connect(&path, AgentKind::VmintAgent, &losses, Instant::now() + LONG).await
    });
    let (mut socket, _) = port.listener.accept().await?;
    synchronize(&mut socket, b"").await?;
    let agent = agent.await??;
    let request_ = ExecRequest::new(vec!["sleep".into()], LONG);
    let running = tokio::spawn({
        let agent = agent.clone();
        async move { agent.exec(&request_).await }
    });
    request(&mut socket).await?;
    assert!(!agent.is_lost());
    lose.send_replace(1);
    let outcome = running.await?;
    assert!(
        matches!(outcome, Err(ExecError::Guest(GuestError::AgentEnded))),
        "{outcome:?}"
    );
    assert!(agent.is_lost());
    Ok(())
}

#[tokio::test]
async fn what_the_guest_refuses_to_bind_is_told_in_its_words() -> anyhow::Result<()> {
    let port = port()?;
    let (agent, mut socket) = connected(&port, AgentKind::VmintAgent, b"").await?;
    let identity = Identity::new("before".into());
    let mut binding = Binding {
        hostname: Some("after".into()),
        ..Binding::default()
    };
    binding.env.insert("KEY".into(), "secret".into());
    for (answer, outcome) in [
        (json!({"return": {"hostname": "after"}}), "after"),
        (
            json!({"return": {"hostname": "before"}}),
            "the guest's answer to vmint-bind is wrong: the host name is \"before\", not \"after\"",
        ),
        (
            json!({"error": {"class": "GenericError", "desc": "/etc: Is a directory"}}),
            "/etc: Is a directory",
        ),
    ] {
        let bound = tokio::spawn({
            let (agent, identity, binding) = (agent.clone(), identity.clone(), binding.clone());
            async move { agent.bind(&identity, &binding).await }
        });
        let asked = request(&mut socket).await?;
        assert_eq!(asked["execute"], "vmint-bind");
        assert_eq!(asked["arguments"]["env"]["KEY"], "secret");
        let mut answer = answer;
        answer["id"] = asked["id"].clone();
        socket.write_all(format!("{answer}\n").as_bytes()).await?;
        let text = match bound.await? {
            Ok(bound) => bound.hostname,
            Err(error) => error.to_string(),
        };
        assert_eq!(text, outcome);
    }
    Ok(())
}

#[tokio::test]
async fn what_the_stock_agent_lacks_is_refused_with_the_reason() -> anyhow::Result<()> {
    let port = port()?;
    let (agent, _socket) = connected(&port, AgentKind::QemuGa, b"").await?;
    let mut as_user = ExecRequest::new(vec!["id".into()], LONG);
    as_user.user = Some("nobody".into());
    let refusal = agent.exec(&as_user).await;
    assert!(
        matches!(&refusal, Err(ExecError::Unsupported { reason, .. }) if reason.contains("qemu-ga")),
        "{refusal:?}"
    );
    let mut binding = Binding::default();
    binding.env.insert("A".into(), "B".into());
    let refusal = agent.bind(&Identity::new("x".into()), &binding).await;
    assert!(
        matches!(&refusal, Err(BindError::Unsupported { .. })),
        "{refusal:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_guest_without_the_helper_is_told_what_it_needs() -> anyhow::Result<()> {
    let port = port()?;
    let (agent, mut socket) = connected(&port, AgentKind::QemuGa, b"").await?;
    let prepared = tokio::spawn(async move { agent.prepare().await });
    let exec = request(&mut socket).await?;
    let refusal =
        json!({"error": {"class": "GenericError", "desc": "Failed to execute"}, "id": exec["id"]});
    socket.write_all(format!("{refusal}\n").as_bytes()).await?;
    let error = prepared.await?.expect_err("it is refused");
    assert!(matches!(error, GuestError::Helper { .. }));
    assert!(error.to_string().contains("docs/guest.md"), "{error}");
    Ok(())
}

/// The step is counted, and the count is wrong where the hypervisor's answers came late.
#[tokio::test]
async fn a_clock_that_is_off_is_stepped_by_what_is_measured() -> anyhow::Result<()> {
    const AHEAD_NS: i64 = 300_000_000;
    let port = port()?;
    let (agent, mut socket) = connected(&port, AgentKind::QemuGa, b"").await?;
    let detected = tokio::spawn(agent.detect());
    let asked = request(&mut socket).await?;
    let info = json!({"version": "1", "supported_commands": [{"name": "vmint-identity", "enabled": true}]});
    answer(&mut socket, &asked, &info).await?;
    let agent = detected.await??;
    let order = IdentityOrder {
        identity: Some(Identity::new("job-1".into())),
        clock_step_ns: 1,
        expect_reseed: true,
    };
    let wanted = order.identity.clone();
    let identified = tokio::spawn(async move { agent.identify(&order).await });

    let mut ahead_ns = AHEAD_NS;
    let mut steps = Vec::new();
    while steps.len() < 2 {
        let asked = request(&mut socket).await?;
        let step = asked["arguments"]["clock-step-ns"].as_i64();
        if let Some(step_ns) = step {
            ahead_ns += if steps.is_empty() { 0 } else { step_ns };
            steps.push(step_ns);
        }
        let clock = WallNs::now().0 + ahead_ns;
        let proof = json!({
            "hostname": wanted.as_ref().map(|it| &it.hostname), "machine_id": wanted.as_ref().map(|it| &it.machine_id),
            "random": "00", "uuid": "u", "clock_realtime_ns": clock, "vmgenid_reseed": steps.len() == 1,
        });
        let said = if step.is_some() { proof } else { json!(clock) };
        answer(&mut socket, &asked, &said).await?;
    }
    let proof = identified.await??;
    assert!(
        proof.vmgenid_reseed,
        "the first order's proof, but for the clock"
    );
    let off_ns = steps[1] + AHEAD_NS;
    assert!(off_ns.abs() < 50_000_000, "stepped by {} ns", steps[1]);
    Ok(())
}

pub(in crate::guest) async fn answer(
    socket: &mut UnixStream,
    request: &Value,
    value: &Value,
) -> std::io::Result<()> {
    let line = json!({"return": value, "id": request["id"]});
    socket.write_all(format!("{line}\n").as_bytes()).await
}

#[tokio::test]
async fn an_agent_of_a_later_protocol_is_refused_and_one_without_a_number_is_not()
-> anyhow::Result<()> {
    for (protocol, is_taken) in [(json!(null), true), (json!(1), true), (json!(2), false)] {
        let port = port()?;
        let (agent, mut socket) = connected(&port, AgentKind::QemuGa, b"").await?;
        let detected = tokio::spawn(agent.detect());
        let asked = request(&mut socket).await?;
        let mut info = json!({"supported_commands": [{"name": "vmint-identity"}]});
        if !protocol.is_null() {
            info["protocol"] = protocol.clone();
        }
        socket
            .write_all(format!("{}\n", json!({"return": info, "id": asked["id"]})).as_bytes())
            .await?;
        match detected.await? {
            Ok(_) => assert!(is_taken, "{protocol}"),
            Err(error) => {
                assert!(
                    !is_taken && error.to_string().contains("protocol 2"),
                    "{error}"
                );
            }
        }
    }
    Ok(())
}
