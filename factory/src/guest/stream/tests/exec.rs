//! Commands with their streams open.

use crate::guest::{ExecError, StreamInput, StreamOutput, WindowSize};

use super::*;

#[tokio::test]
async fn a_command_is_opened_as_the_protocol_says() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let mut request = command();
    request.argv = vec!["top".into(), "-d1".into()];
    request.env.insert("A".into(), "b".into());
    request.cwd = Some("/tmp".into());
    request.user = Some("nobody".into());
    request.tty = Some(WindowSize {
        rows: 24,
        columns: 80,
    });
    let _stream = link.exec(&request)?;
    let (_, open) = guest.opened().await?;
    let want = json!({"exec": {
        "argv": ["top", "-d1"], "env": {"A": "b"}, "cwd": "/tmp", "user": "nobody",
        "timeout-ms": 30000, "stdin": true, "tty": {"rows": 24, "cols": 80},
    }});
    assert_eq!(open, want);
    Ok(())
}

#[tokio::test]
async fn every_way_to_end_is_told_apart() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    for (result, want) in [
        (
            json!({"exit_code": 3, "signal": null, "timed_out": false, "spawn_error": null}),
            "Ok(StreamEnd { exit_code: Some(3), signal: None })",
        ),
        (
            json!({"exit_code": null, "signal": 9, "timed_out": false, "spawn_error": null}),
            "Ok(StreamEnd { exit_code: None, signal: Some(9) })",
        ),
        (
            json!({"exit_code": null, "signal": 9, "timed_out": true, "spawn_error": null}),
            "Err(Deadline { after: 30s, output: 0 + 0 bytes })",
        ),
        (
            json!({"spawn_error": {"errno": 2, "message": "No such file"}}),
            "Err(Spawn { argv0: \"cat\", reason: \"No such file\", errno: 2 })",
        ),
        (
            json!({"error": {"errno": 0, "message": "64 streams are open"}}),
            "Err(Guest(Refused { command: \"a streaming command\", reason: \"64 streams are open\" }))",
        ),
    ] {
        let mut stream = link.exec(&command())?;
        let (id, _) = guest.opened().await?;
        guest.result(id, &result).await?;
        let Some(StreamOutput::Ended(end)) = stream.output.recv().await else {
            anyhow::bail!("no end");
        };
        assert_eq!(format!("{end:?}"), want);
        assert!(stream.output.recv().await.is_none());
    }
    Ok(())
}

#[tokio::test]
async fn standard_input_that_was_not_opened_takes_nothing() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let mut request = command();
    request.stdin = false;
    let stream = link.exec(&request)?;
    let (id, _) = guest.opened().await?;
    stream.input.send(StreamInput::Bytes("lost".into())).await?;
    stream.input.send(StreamInput::Cancel).await?;
    let frame = guest.frame().await?;
    assert_eq!((frame.stream, frame.kind), (id, Kind::Cancel));
    Ok(())
}

#[tokio::test]
async fn what_no_frame_holds_is_refused() -> anyhow::Result<()> {
    let (link, _guest, _agent) = dialled(b"").await?;
    let mut request = command();
    request.argv.push("x".repeat(40_000));
    let refusal = link.exec(&request).map(drop);
    assert!(
        matches!(&refusal, Err(ExecError::Invalid { reason }) if reason.contains("32768")),
        "{refusal:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_silent_beyond_the_deadline_is_given_up() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let mut stream = link.exec(&command())?;
    guest.opened().await?;
    let end = stream.output.recv().await;
    assert!(
        matches!(
            &end,
            Some(StreamOutput::Ended(Err(ExecError::Guest(
                GuestError::Silent { .. }
            ))))
        ),
        "{end:?}"
    );
    assert_eq!(guest.frame().await?.kind, Kind::Cancel);
    Ok(())
}
