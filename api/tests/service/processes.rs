//! Processes in a real guest: they outlive their clients and the service; what belongs to a connection does not.

use std::process::Stdio;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use crate::service::{LONG, Place, Service, eventually, id};

/// Processes that run at once.
const PROCESSES_MAX: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn processes_outlive_their_clients_and_the_service() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 2")?;
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    let checkout = json!({"wait_ms": 60_000, "ttl_s": 3600});
    let (status, sandbox) = service.checkout(checkout).await?;
    assert_eq!(status, 201, "{sandbox}");
    assert_eq!(sandbox["agent"], "current");
    let sandbox = id(&sandbox);
    one_that_ends_by_itself(&service, &sandbox).await?;
    signals_and_ends(&service, &sandbox).await?;
    no_more_than_may(&service, &sandbox).await?;
    an_exec_ends_with_its_client(&service, &sandbox).await?;
    let shared = attached_by_two(&service, &sandbox).await?;

    // The service is killed while a command runs, which ends; the process goes on.
    let running = tokio::spawn(exec_of(&service, &sandbox, "sleep 4323"));
    until_runs(&service, &sandbox, "sleep 4323", true).await?;
    service.kill().await?;
    let _ = running.await?;
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    until_runs(&service, &sandbox, "sleep 4323", false).await?;
    let shown = show(&service, &sandbox, &shared).await?;
    assert_eq!(
        (&shown["state"], &shown["stdout"]),
        (&json!("running"), &json!("begun\ngot one\ngot two\n"))
    );
    its_end_is_seen_by_those_who_come_later(&place, &sandbox, &shared).await?;
    assert_eq!(service.release(&sandbox).await?, 204);
    service.leave().await?;
    let cleaned = place.run_configured(&["clean"]).await?;
    assert!(cleaned.status.success());
    place.nothing_left()?;
    Ok(std::fs::remove_dir_all(&place.folder)?)
}

fn path(sandbox: &str, after: &str) -> String {
    format!("/v1/sandboxes/{sandbox}/processes{after}")
}

/// Asks for a process.
async fn post(service: &Service<'_>, sandbox: &str, body: Value) -> anyhow::Result<(u16, Value)> {
    let path = path(sandbox, "");
    service.call(Method::POST, &path, Some(body)).await
}

async fn start(service: &Service<'_>, sandbox: &str, body: Value) -> anyhow::Result<String> {
    let (status, process) = post(service, sandbox, body).await?;
    anyhow::ensure!(status == 201, "{status}: {process}");
    Ok(id(&process))
}

async fn show(service: &Service<'_>, sandbox: &str, process: &str) -> anyhow::Result<Value> {
    service.get(&path(sandbox, &format!("/{process}"))).await
}

async fn end(service: &Service<'_>, sandbox: &str, process: &str) -> anyhow::Result<u16> {
    let path = path(sandbox, &format!("/{process}"));
    Ok(service.call(Method::DELETE, &path, None).await?.0)
}

async fn until_exited(
    service: &Service<'_>,
    sandbox: &str,
    process: &str,
) -> anyhow::Result<Value> {
    let mut shown = Value::Null;
    eventually("the end of a process", LONG, async || {
        shown = show(service, sandbox, process).await?;
        Ok(shown["state"] == "exited")
    })
    .await?;
    Ok(shown)
}

/// Waits until a command line runs in the guest, or does not.
async fn until_runs(
    service: &Service<'_>,
    sandbox: &str,
    line: &str,
    runs: bool,
) -> anyhow::Result<()> {
    // The pattern is not its own match.
    let script = format!("ps -o args | grep -q '^[{}]{}'", &line[..1], &line[1..]);
    let what = format!("{line}: {runs}");
    eventually(&what, LONG, async || {
        let (_, end) = service.exec(sandbox, &script).await?;
        Ok((end["exit_code"] == 0) == runs && end["exit_code"].is_number())
    })
    .await
}

async fn one_that_ends_by_itself(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let script = "id -un; pwd; echo $K; echo no >&2; exit 3";
    let body =
        json!({"argv": ["sh", "-c", script], "user": "nobody", "cwd": "/tmp", "env": {"K": "v"}});
    let (status, process) = post(service, sandbox, body).await?;
    assert_eq!(status, 201, "{process}");
    assert_eq!(
        (&process["user"], &process["tty"]),
        (&json!("nobody"), &json!(false))
    );
    let ended = until_exited(service, sandbox, &id(&process)).await?;
    assert_eq!(ended["stdout"], "nobody\n/tmp\nv\n", "{ended}");
    assert_eq!(ended["stderr"], "no\n");
    assert_eq!(
        (&ended["exit_code"], &ended["signal"], &ended["ended_by"]),
        (&json!(3), &Value::Null, &json!("exit"))
    );
    assert_eq!(
        (&ended["pid"], &ended["truncated"]),
        (&Value::Null, &json!(false))
    );
    // The newest MiB is kept, and text stays text wherever it begins.
    let script = "printf a; yes \u{e4} | tr -d '\\n' | head -c 3000000";
    let much = start(service, sandbox, json!({"argv": ["sh", "-c", script]})).await?;
    let ended = until_exited(service, sandbox, &much).await?;
    let text = ended["stdout"].as_str().unwrap_or_default();
    assert!(
        text.len() > (1 << 20) - 4 && text.len() <= 1 << 20,
        "{}",
        text.len()
    );
    assert!(text.chars().all(|c| c == '\u{e4}') && ended["truncated"] == true);
    let listed = service.get(&path(sandbox, "")).await?;
    let ids: Vec<String> = listed["processes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(id)
        .collect();
    assert_eq!(ids, [id(&process), much]);
    let nothing = json!({"argv": ["/no/such/program"]});
    let (status, refused) = post(service, sandbox, nothing).await?;
    assert_eq!((status, &refused["errno"]), (422, &json!(2)), "{refused}");
    Ok(())
}

async fn signals_and_ends(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let signal = async |process: &str, signal: Value| {
        let path = path(sandbox, &format!("/{process}/signal"));
        let body = Some(json!({"signal": signal}));
        anyhow::Ok(service.call(Method::POST, &path, body).await?.0)
    };
    // A trap is told of it, and goes on.
    let script = "trap 'echo caught' USR1; echo armed; while :; do sleep 0.1; done";
    let process = start(service, sandbox, json!({"argv": ["sh", "-c", script]})).await?;
    let says = async |text: &str| {
        eventually(text, LONG, async || {
            let shown = show(service, sandbox, &process).await?;
            Ok(shown["stdout"]
                .as_str()
                .is_some_and(|out| out.ends_with(text)))
        })
        .await
    };
    says("armed\n").await?;
    assert_eq!(signal(&process, json!("SIGUSR1")).await?, 204);
    says("caught\n").await?;
    assert_eq!(signal(&process, json!(15)).await?, 204);
    let ended = until_exited(service, sandbox, &process).await?;
    assert_eq!(
        (&ended["exit_code"], &ended["signal"], &ended["ended_by"]),
        (&Value::Null, &json!(15), &json!("signal"))
    );
    assert_eq!(signal(&process, json!("TERM")).await?, 409);

    // An end is the end of all descendants, those in a session of their own too.
    let script = "setsid sleep 2001 & sleep 2002";
    let process = start(service, sandbox, json!({"argv": ["sh", "-c", script]})).await?;
    until_runs(service, sandbox, "sleep 2001", true).await?;
    assert_eq!(end(service, sandbox, &process).await?, 204);
    let ended = until_exited(service, sandbox, &process).await?;
    assert_eq!(ended["ended_by"], "killed", "{ended}");
    until_runs(service, sandbox, "sleep 2001", false).await?;
    until_runs(service, sandbox, "sleep 2002", false).await?;
    assert_eq!(end(service, sandbox, &process).await?, 204);
    assert_eq!(end(service, sandbox, &process).await?, 404);

    let body = json!({"argv": ["sleep", "1000"], "timeout_ms": 300});
    let process = start(service, sandbox, body).await?;
    let ended = until_exited(service, sandbox, &process).await?;
    assert_eq!(ended["ended_by"], "timeout", "{ended}");
    Ok(())
}

async fn no_more_than_may(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let sleep = || json!({"argv": ["sleep", "3000"]});
    let mut all = Vec::new();
    for _ in 0..PROCESSES_MAX {
        all.push(start(service, sandbox, sleep()).await?);
    }
    let (status, refused) = post(service, sandbox, sleep()).await?;
    assert_eq!(
        (status, &refused["code"]),
        (429, &json!("too_many_processes")),
        "{refused}"
    );
    let (status, refused) = service.exec(sandbox, "true").await?;
    assert_eq!(
        (status, &refused["code"]),
        (429, &json!("too_many_processes")),
        "{refused}"
    );
    for process in &all {
        assert_eq!(end(service, sandbox, process).await?, 204);
        until_exited(service, sandbox, process).await?;
        assert_eq!(end(service, sandbox, process).await?, 204);
    }
    Ok(())
}

/// The text of a POST exec.
fn post_exec(sandbox: &str, script: &str) -> String {
    let body = json!({"argv": ["sh", "-c", script]}).to_string();
    format!(
        "POST /v1/sandboxes/{sandbox}/exec HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Runs a command until it or the service ends.
fn exec_of(
    service: &Service<'_>,
    sandbox: &str,
    script: &str,
) -> impl Future<Output = anyhow::Result<(u16, Value)>> + Send + use<> {
    let socket = service.place.run_dir().join("api.sock");
    let path = format!("/v1/sandboxes/{sandbox}/exec");
    let body = json!({"argv": ["sh", "-c", script]});
    async move { crate::service::call(&socket, Method::POST, &path, Some(body)).await }
}

async fn an_exec_ends_with_its_client(service: &Service<'_>, sandbox: &str) -> anyhow::Result<()> {
    let mut client = UnixStream::connect(service.place.run_dir().join("api.sock")).await?;
    let request = post_exec(sandbox, "setsid sleep 4321 & sleep 4322");
    client.write_all(request.as_bytes()).await?;
    until_runs(service, sandbox, "sleep 4321", true).await?;
    until_runs(service, sandbox, "sleep 4322", true).await?;
    drop(client);
    until_runs(service, sandbox, "sleep 4321", false).await?;
    until_runs(service, sandbox, "sleep 4322", false).await
}

/// A `vmint attach`.
struct Attached {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Attached {
    fn start(place: &Place, sandbox: &str, process: &str) -> anyhow::Result<Self> {
        let mut child = place
            .vmint(&["attach", "--replay", sandbox, process])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || anyhow::anyhow!("it has no pipe");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        Ok(Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    async fn shows(&mut self, expected: &str) -> anyhow::Result<()> {
        let line = timeout(LONG, self.lines.next_line()).await??;
        anyhow::ensure!(line.as_deref() == Some(expected), "{line:?}: {expected}");
        Ok(())
    }
}

/// Two clients see all of one process, and both are its input. They go, and it stays.
async fn attached_by_two(service: &Service<'_>, sandbox: &str) -> anyhow::Result<String> {
    let script = "echo begun; while read line; do echo \"got $line\"; done; echo bye >&2; exit 5";
    let body = json!({"argv": ["sh", "-c", script], "stdin": true});
    let process = start(service, sandbox, body).await?;
    let mut both = [
        Attached::start(service.place, sandbox, &process)?,
        Attached::start(service.place, sandbox, &process)?,
    ];
    for client in &mut both {
        client.shows("begun").await?;
    }
    for (from, word) in [(0, "one"), (1, "two")] {
        both[from]
            .stdin
            .write_all(format!("{word}\n").as_bytes())
            .await?;
        for client in &mut both {
            client.shows(&format!("got {word}")).await?;
        }
    }
    assert_eq!(show(service, sandbox, &process).await?["attached"], 2);
    for client in &mut both {
        client.child.kill().await?;
    }
    eventually("nobody is attached", LONG, async || {
        let shown = show(service, sandbox, &process).await?;
        Ok(shown["attached"] == 0 && shown["state"] == "running")
    })
    .await?;
    Ok(process)
}

async fn its_end_is_seen_by_those_who_come_later(
    place: &Place,
    sandbox: &str,
    process: &str,
) -> anyhow::Result<()> {
    let mut client = Attached::start(place, sandbox, process)?;
    for line in ["begun", "got one", "got two"] {
        client.shows(line).await?;
    }
    client.stdin.write_all(b"three\n").await?;
    client.shows("got three").await?;
    drop(client.stdin);
    let output = timeout(LONG, client.child.wait_with_output()).await??;
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "bye\n");
    let later = place.run(&["attach", "--replay", sandbox, process]).await?;
    assert_eq!(later.status.code(), Some(5));
    assert!(later.stdout.ends_with(b"got three\n") && later.stderr == b"bye\n");
    Ok(())
}
