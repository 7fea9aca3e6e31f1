//! Processes that belong to no connection.

use super::*;
use crate::guest::{
    EndedBy, ExecError, Process, ProcessError, ProcessOrder, StreamInput, StreamOutput,
};

fn described() -> Value {
    json!({
        "id": "p1", "argv": ["server", "-v"], "user": null, "tty": false, "state": "running", "pid": 7,
        "started_at_ms": 1000, "ended_at_ms": null, "exit_code": null, "signal": null, "ended_by": null,
        "attached": 0, "kept_bytes": 12, "truncated": false,
    })
}

fn ended(ended_by: &str, exit_code: Option<i32>, signal: Option<i32>) -> Value {
    let mut process = described();
    process["state"] = json!("exited");
    process["pid"] = Value::Null;
    process["ended_at_ms"] = json!(3500);
    process["ended_by"] = json!(ended_by);
    process["exit_code"] = json!(exit_code);
    process["signal"] = json!(signal);
    process
}

fn order() -> ProcessOrder {
    ProcessOrder {
        command: StreamRequest {
            argv: vec!["server".into(), "-v".into()],
            ..StreamRequest::default()
        },
        keep_output: true,
    }
}

fn started(agent: &Agent) -> tokio::task::JoinHandle<Result<Process, ProcessError>> {
    let agent = agent.clone();
    tokio::spawn(async move { agent.start_process(&order()).await })
}

#[tokio::test]
async fn a_process_is_started_without_a_timeout_and_read_as_the_guest_describes_it()
-> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let starting = started(&agent);
    let asked = guest.request().await?;
    assert_eq!(asked["execute"], "start");
    let want = json!({"argv": ["server", "-v"], "stdin": false, "keep_output": true});
    assert_eq!(asked["arguments"], want);
    guest.answer(&asked, &described()).await?;
    let process = starting.await??;
    assert!(process.is_running && process.ended_by.is_none());
    assert_eq!((process.id.as_str(), process.pid), ("p1", Some(7)));

    let listing = tokio::spawn({
        let agent = agent.clone();
        async move { agent.processes().await }
    });
    let asked = guest.request().await?;
    let mut unkept = ended("agent_lost", None, Some(9));
    unkept["kept_bytes"] = Value::Null;
    unkept["truncated"] = Value::Null;
    let listed = json!({"processes": [described(), unkept]});
    guest.answer(&asked, &listed).await?;
    let listed = listing.await??;
    assert_eq!(listed[0], process);
    assert!(!listed[1].is_running);
    assert_eq!(listed[1].ended_by, Some(EndedBy::AgentLost));
    Ok(())
}

#[tokio::test]
async fn refusals_about_a_process_are_told_apart() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    for (code, want) in [
        ("no_process", "NoProcess { process: \"p9\" }"),
        ("ended", "HasEnded { process: \"p9\" }"),
        ("argument", "Exec(Invalid { reason: \"words\" })"),
        (
            "failed",
            "Exec(Guest(Refused { command: \"signal\", reason: \"words\" }))",
        ),
    ] {
        let signalled = tokio::spawn({
            let agent = agent.clone();
            async move { agent.signal_process("p9", 15).await }
        });
        let asked = guest.request().await?;
        assert_eq!(asked["arguments"], json!({"process": "p9", "signal": 15}));
        guest.refuse(&asked, code, "words").await?;
        let error = signalled.await?.expect_err("it is refused");
        assert_eq!(format!("{error:?}"), want);
    }
    for (code, want) in [
        ("too_many", "Exec(TooMany { limit: 64 })"),
        (
            "not_started",
            "Exec(Spawn { argv0: \"server\", reason: \"words\", errno: 0 })",
        ),
    ] {
        let starting = started(&agent);
        let asked = guest.request().await?;
        guest.refuse(&asked, code, "words").await?;
        let error = starting.await?.expect_err("it is refused");
        assert_eq!(format!("{error:?}"), want);
    }
    Ok(())
}

/// What became of a start cannot be known when the connection is lost: it is not tried again.
#[tokio::test]
async fn a_start_whose_connection_is_lost_is_asked_for_once() -> anyhow::Result<()> {
    let port = port()?;
    let dialling = port.dial(never_lost());
    let mut guest = port.accept().await?;
    let mark = guest.marked().await?;
    guest.write(&mark.bytes()).await?;
    let agent = dialling.await??;
    let starting = started(&agent);
    let asked = guest.request().await?;
    assert_eq!(asked["execute"], "start");
    drop(guest);
    let error = starting.await?.expect_err("it is lost");
    assert!(
        matches!(error, ProcessError::Exec(ExecError::Guest(_))),
        "{error:?}"
    );
    let again = port.listener.accept();
    let again = tokio::time::timeout(Duration::from_millis(50), again).await;
    assert!(again.is_err(), "it is dialled by what comes next");
    Ok(())
}

/// Attaches to a process that is there.
async fn attached(
    agent: &Agent,
    guest: &mut Guest,
) -> anyhow::Result<(crate::guest::ExecStream, u16)> {
    let attaching = tokio::spawn({
        let agent = agent.clone();
        async move { agent.attach_process("p1", true).await }
    });
    let asked = guest.request().await?;
    assert_eq!(asked["execute"], "process");
    guest.answer(&asked, &described()).await?;
    let (id, open) = guest.opened().await?;
    let want = json!({"attach": {"process": "p1", "replay": true, "follow": true}});
    anyhow::ensure!(open == want, "{open}");
    Ok((attaching.await??, id))
}

#[tokio::test]
async fn an_attached_stream_says_how_the_process_ended() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    for (result, want) in [
        (
            ended("exit", Some(3), None),
            "Ok(StreamEnd { exit_code: Some(3), signal: None })",
        ),
        (
            ended("killed", None, None),
            "Ok(StreamEnd { exit_code: None, signal: Some(9) })",
        ),
        (
            ended("timeout", None, Some(9)),
            "Err(Deadline { after: 2.5s, output: 0 + 0 bytes })",
        ),
        (described(), "Err(Guest(Closed))"),
    ] {
        let (mut stream, id) = attached(&agent, &mut guest).await?;
        guest.say(id, Kind::Data, 1, b"kept").await?;
        guest.result(id, &result).await?;
        let kept = stream.output.recv().await;
        assert!(matches!(kept, Some(StreamOutput::Stdout(_))), "{kept:?}");
        let Some(StreamOutput::Ended(end)) = stream.output.recv().await else {
            anyhow::bail!("no end");
        };
        assert_eq!(format!("{end:?}"), want);
    }
    Ok(())
}

/// Its standard input is shared: it ends when one of those who have it says so, and not when one of them leaves.
#[tokio::test]
async fn leaving_ends_neither_the_process_nor_its_input() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let (stream, id) = attached(&agent, &mut guest).await?;
    let crate::guest::ExecStream { input, output } = stream;
    input.send(StreamInput::Bytes("in".into())).await?;
    assert_eq!(guest.frame().await?.kind, Kind::Data);
    drop(input);
    tokio::task::yield_now().await;
    drop(output);
    let frame = guest.frame().await?;
    assert_eq!((frame.stream, frame.kind), (id, Kind::Cancel));

    let (stream, id) = attached(&agent, &mut guest).await?;
    stream.input.send(StreamInput::End).await?;
    let frame = guest.frame().await?;
    assert_eq!((frame.stream, frame.kind), (id, Kind::End));
    Ok(())
}

#[tokio::test]
async fn a_process_that_is_not_there_is_known_before_a_stream_begins() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let attaching = tokio::spawn(async move { agent.attach_process("p1", true).await });
    let asked = guest.request().await?;
    guest.refuse(&asked, "no_process", "").await?;
    let error = attaching.await?.map(drop).expect_err("it is not there");
    assert!(matches!(error, ProcessError::NoProcess { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn kept_output_comes_whole_and_says_whether_there_was_more() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let ask = |agent: &Agent| {
        let agent = agent.clone();
        tokio::spawn(async move { agent.kept_output("p1").await })
    };
    let asking = ask(&agent);
    let (id, open) = guest.opened().await?;
    let want = json!({"attach": {"process": "p1", "replay": true, "follow": false}});
    assert_eq!(open, want);
    guest.say(id, Kind::Data, 1, b"out").await?;
    guest.say(id, Kind::Data, 2, b"err").await?;
    let mut process = described();
    process["truncated"] = json!(true);
    guest.result(id, &process).await?;
    let kept = asking.await??;
    assert_eq!(
        (&*kept.stdout, &*kept.stderr, kept.truncated),
        (&b"out"[..], &b"err"[..], true)
    );
    let asking = ask(&agent);
    let (id, _) = guest.opened().await?;
    let error = json!({"error": {"code": "no_process", "errno": 0, "message": ""}});
    guest.result(id, &error).await?;
    let error = asking.await?.expect_err("it is not there");
    assert!(matches!(error, ProcessError::NoProcess { .. }), "{error:?}");
    Ok(())
}
