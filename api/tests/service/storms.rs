//! What commands do to their guest, and what they may expect of it.

use http::Method;
use serde_json::{Value, json};

use crate::service::{LONG, Place, Service, eventually, id};

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_survives_its_own_commands() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 2")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let checkout = json!({"wait_ms": 60_000, "ttl_s": 3600, "env": {"TOKEN": "hush", "PATH": "/nowhere:/bin"}});
    let (status, sandbox) = service.checkout(checkout).await?;
    assert_eq!(status, 201, "{sandbox}");
    let sandbox = id(&sandbox);
    what_linux_users_expect(&service, &sandbox).await?;
    output_that_is_cut(&service, &sandbox).await?;
    a_fork_storm(&service, &sandbox).await?;
    no_room_is_left(&service, &sandbox).await?;
    a_memory_storm(&service, &sandbox).await?;
    everything_is_killed(&service, &sandbox).await?;
    assert_eq!(service.release(&sandbox).await?, 204);
    service.stop().await?;
    place.close().await
}

async fn run(
    service: &Service<'_>,
    sandbox: &str,
    script: &str,
    timeout_ms: u64,
) -> anyhow::Result<(u16, Value)> {
    let path = format!("/v1/sandboxes/{sandbox}/exec");
    let body = json!({"argv": ["sh", "-c", script], "timeout_ms": timeout_ms});
    service.call(Method::POST, &path, Some(body)).await
}

/// The next command after something bad works at once.
async fn works(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let (status, end) = run(service, sandbox, "echo $TOKEN", 60_000).await?;
    anyhow::ensure!(
        status == 200 && end["stdout"] == "hush\n",
        "{status}: {end}"
    );
    Ok(())
}

async fn what_linux_users_expect(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let path = format!("/v1/sandboxes/{sandbox}/exec");
    let body = json!({"argv": ["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"], "user": "nobody"});
    let (_, end) = service.call(Method::POST, &path, Some(body)).await?;
    assert_eq!(
        (&end["stdout"], &end["stderr"]),
        (&json!("out\n"), &json!("err\n")),
        "{end}"
    );
    let (_, end) = service.exec(sandbox, "ulimit -Sn; ulimit -Hn").await?;
    let limits = end["stdout"].as_str().unwrap_or_default();
    let limits: Vec<u64> = limits.lines().flat_map(str::parse).collect();
    assert!(
        limits.len() == 2 && limits[0] == 1024 && limits[1] >= 1 << 20,
        "{end}"
    );
    Ok(())
}

async fn output_that_is_cut(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    // The deadline leaves the newest part. On a busy host all of it has come at a later one.
    let script = "head -c 9000000 /dev/zero | tr '\\0' y; echo end; echo err >&2; sleep 1000";
    let mut end = Value::Null;
    for timeout_ms in [10_000, 60_000] {
        let (status, late) = run(service, sandbox, script, timeout_ms).await?;
        assert_eq!((status, &late["code"]), (504, &json!("timeout")));
        end = late;
        if end["stderr"] == "err\n" {
            break;
        }
    }
    let text = end["stdout"].as_str().unwrap_or_default();
    assert!(
        text.ends_with("yyend\n"),
        "{:?}",
        text.get(text.len().saturating_sub(20)..)
    );
    assert!(
        text.len() <= 1 << 20 && text.len() > (1 << 20) - 4,
        "{}",
        text.len()
    );
    assert_eq!(
        (&end["stderr"], &end["truncated"]),
        (&json!("err\n"), &json!(true))
    );
    // An odd number of bytes before characters of two: the limit is within one.
    let script = "x=\u{e4}; for i in $(seq 22); do x=$x$x; done; printf a$x";
    let (status, end) = run(service, sandbox, script, 60_000).await?;
    assert_eq!((status, &end["truncated"]), (200, &json!(true)));
    let text = end["stdout"].as_str().unwrap_or_default();
    assert_eq!(text.len(), (8 << 20) - 1);
    Ok(())
}

async fn a_fork_storm(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    // Its main process waits: it is there at the deadline, and dies with its storm. What it wrote is told.
    let script = "echo begun; f(){ f|f& wait; }; f";
    let (status, end) = run(service, sandbox, script, 5000).await?;
    assert_eq!(
        (status, &end["code"], &end["stdout"]),
        (504, &json!("timeout"), &json!("begun\n")),
        "{end}"
    );
    works(service, sandbox).await?;
    // The main process of this form ends at once (200), unless it finds no room for its first child, or its storm
    // keeps it from the processor until the deadline (504): both are right. Its storm goes on in the background, two
    // of them side by side.
    for _ in 0..2 {
        let (status, end) = run(service, sandbox, "f(){ f|f& }; f", 5000).await?;
        assert!(status == 504 || status == 200, "{status}: {end}");
    }
    works(service, sandbox).await
}

/// What two commands have left in the background is all that there may be, as the guest's root has it. The next command
/// has room all the same: what they have left is killed.
async fn no_room_is_left(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let all = "/sys/fs/cgroup/processes";
    let limits = format!("cat {all}/pids.max /proc/sys/kernel/threads-max");
    let (_, end) = service.exec(sandbox, &limits).await?;
    let limits = end["stdout"].as_str().unwrap_or_default();
    let limits: Vec<u64> = limits.lines().flat_map(str::parse).collect();
    assert!(
        limits.len() == 2 && limits[0] == limits[1] - limits[1] / 8,
        "{end}"
    );
    for script in [
        "sleep 9999 & sleep 9999 &".to_owned(),
        format!("sleep 9999 & echo 2 > {all}/pids.max"),
    ] {
        let (status, end) = run(service, sandbox, &script, 60_000).await?;
        assert_eq!((status, &end["exit_code"]), (200, &json!(0)), "{end}");
    }
    works(service, sandbox).await?;
    let give_back = format!(
        "echo {} > {all}/pids.max; cat {all}/pids.current",
        limits[0]
    );
    let (_, end) = service.exec(sandbox, &give_back).await?;
    let left = end["stdout"].as_str().unwrap_or_default().trim();
    // The shell that echoes, and the program that it starts.
    assert!(matches!(left, "1" | "2"), "{end}");
    Ok(())
}

async fn a_memory_storm(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let (status, end) = run(service, sandbox, "tail /dev/zero", 20_000).await?;
    let was_killed = status == 200 && end["signal"] == 9 || end["exit_code"] == 137;
    assert!(status == 504 || was_killed, "{status}: {end}");
    works(service, sandbox).await
}

/// The agent comes back with what was bound, and says of every process that it was lost.
async fn everything_is_killed(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let processes = format!("/v1/sandboxes/{sandbox}/processes");
    let body = json!({"argv": ["sh", "-c", "echo begun; sleep 5000"]});
    let (_, process) = service.call(Method::POST, &processes, Some(body)).await?;
    let path = format!("{processes}/{}", id(&process));
    eventually("it has begun", LONG, async || {
        Ok(service.get(&path).await?["stdout"] == "begun\n")
    })
    .await?;
    // How it ends, nobody can say: its agent is killed, too.
    let _ = run(service, sandbox, "kill -9 -1", 10_000).await?;
    eventually("the agent is back", LONG, async || {
        works(service, sandbox).await?;
        Ok(true)
    })
    .await?;
    let shown = service.get(&path).await?;
    assert_eq!(
        (&shown["state"], &shown["ended_by"]),
        (&json!("exited"), &json!("agent_lost")),
        "{shown}"
    );
    let body = json!({"argv": ["true"]});
    let (status, next) = service.call(Method::POST, &processes, Some(body)).await?;
    assert_eq!(status, 201, "{next}");
    assert_ne!(next["id"], process["id"], "an id is never given twice");
    Ok(())
}
