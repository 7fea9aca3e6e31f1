//! Commands with their streams open.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::guest::command::Command;
use crate::guest::{ExecError, ExecOutcome, ExecRequest, StreamInput, StreamOutput, WindowSize};

#[tokio::test]
async fn a_command_is_opened_as_the_protocol_says() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let mut request = command();
    request.argv = vec!["top".into(), "-d1".into()];
    request.env.insert("A".into(), "b".into());
    request.cwd = Some("/tmp".into());
    request.user = Some("nobody".into());
    request.bound_env = false;
    request.tty = Some(WindowSize {
        rows: 24,
        columns: 80,
    });
    let _stream = link.exec_stream(&request)?;
    let (_, open) = guest.opened().await?;
    let want = json!({"exec": {
        "argv": ["top", "-d1"], "env": {"A": "b"}, "cwd": "/tmp", "user": "nobody",
        "timeout_ms": 30000, "stdin": true, "tty": {"rows": 24, "columns": 80}, "bound_env": false,
    }});
    assert_eq!(open, want);
    Ok(())
}

#[tokio::test]
async fn every_way_to_end_is_told_apart() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    for (result, want) in [
        (
            json!({"exit_code": 3, "signal": null, "ended_by": "exit"}),
            "Ok(StreamEnd { exit_code: Some(3), signal: None })",
        ),
        (
            json!({"exit_code": null, "signal": 15, "ended_by": "signal"}),
            "Ok(StreamEnd { exit_code: None, signal: Some(15) })",
        ),
        (
            json!({"exit_code": null, "signal": null, "ended_by": "killed"}),
            "Ok(StreamEnd { exit_code: None, signal: Some(9) })",
        ),
        (
            json!({"exit_code": null, "signal": 9, "ended_by": "timeout"}),
            "Err(Deadline { after: 30s, output: 0 + 0 bytes })",
        ),
        (
            json!({"error": {"code": "not_started", "errno": 2, "message": "No such file"}}),
            "Err(Spawn { argv0: \"cat\", reason: \"No such file\", errno: 2 })",
        ),
        (
            json!({"error": {"code": "too_many", "errno": 0, "message": "64 processes run"}}),
            "Err(TooMany { limit: 64 })",
        ),
        (
            json!({"error": {"code": "argument", "errno": 0, "message": "unknown: x"}}),
            "Err(Invalid { reason: \"unknown: x\" })",
        ),
        (
            json!({"error": {"code": "failed", "errno": 5, "message": "no"}}),
            "Err(Guest(Refused { command: \"a command\", reason: \"no\" }))",
        ),
    ] {
        let mut stream = link.exec_stream(&command())?;
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
    let (link, mut guest) = connected().await?;
    let mut request = command();
    request.stdin = false;
    let stream = link.exec_stream(&request)?;
    let (id, _) = guest.opened().await?;
    stream.input.send(StreamInput::Bytes("lost".into())).await?;
    drop(stream);
    let frame = guest.frame().await?;
    assert_eq!((frame.stream, frame.kind), (id, Kind::Cancel));
    Ok(())
}

#[tokio::test]
async fn a_long_command_line_comes_in_parts_and_one_that_is_too_long_is_refused()
-> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let mut request = command();
    let long = "x".repeat(100_000);
    request.argv.extend(vec![long.clone(); 3]);
    let _streams = [link.exec_stream(&request)?, link.exec_stream(&request)?];
    for _ in 0..2 {
        let (_, open) = guest.opened().await?;
        assert_eq!(open["exec"]["argv"][3], long);
    }
    request.argv.extend(vec![long; 40]);
    let refusal = link.exec_stream(&request).map(drop);
    assert!(
        matches!(&refusal, Err(ExecError::Invalid { reason }) if reason.contains("4194304")),
        "{refusal:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_silent_beyond_the_deadline_is_given_up() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let mut stream = link.exec_stream(&command())?;
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

/// A command that is collected, and its stream.
async fn running(
    agent: &Agent,
    guest: &mut Guest,
    request: ExecRequest,
) -> anyhow::Result<(
    tokio::task::JoinHandle<Result<ExecOutcome, ExecError>>,
    u16,
    Value,
)> {
    let agent = agent.clone();
    let running = tokio::spawn(async move { agent.exec(request).await });
    let (id, open) = guest.opened().await?;
    Ok((running, id, open))
}

fn collected(max_output_bytes: u64) -> ExecRequest {
    ExecRequest {
        max_output_bytes,
        ..ExecRequest::new(vec!["cat".into()], LONG)
    }
}

#[tokio::test]
async fn a_collected_command_is_one_write_and_its_output_is_bounded() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let mut request = collected(5);
    request.stdin = Bytes::from_static(b"in");
    let (running, id, open) = running(&agent, &mut guest, request).await?;
    let want = json!({"exec": {"argv": ["cat"], "timeout_ms": 30000, "stdin": true}});
    assert_eq!(open, want);
    let left = [
        guest.bytes(id, Kind::Data, 0, b"in"),
        guest.bytes(id, Kind::End, 0, b""),
    ];
    assert_eq!(guest.incoming, left.concat(), "they came with it");
    guest.say(id, Kind::Data, 1, b"stdout").await?;
    guest.say(id, Kind::Data, 2, b"std").await?;
    guest.say(id, Kind::Data, 2, b"er").await?;
    guest.exited(id).await?;
    let outcome = running.await??;
    assert_eq!(outcome.stdout, b"stdou");
    assert_eq!(outcome.stderr, b"stder");
    assert!(outcome.truncated);
    Ok(())
}

#[tokio::test]
async fn what_a_command_reads_is_held_until_the_guest_has_it_and_no_longer() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let held = Arc::new(());
    let mut request = collected(5);
    request.stdin = Bytes::from_owner(HeldBy {
        bytes: vec![b'x'; 1 << 20],
        _held: Arc::clone(&held),
    });
    let (running, id, _) = running(&agent, &mut guest, request).await?;
    assert_eq!(Arc::strong_count(&held), 2);
    let mut read = 0;
    loop {
        let frame = guest.frame().await?;
        match frame.kind {
            Kind::Data => {
                read += frame.payload.len();
                let credit = u32::try_from(frame.payload.len())?.to_le_bytes();
                guest.say(id, Kind::Credit, 0, &credit).await?;
            }
            Kind::End => break,
            other => anyhow::bail!("{other:?}"),
        }
    }
    assert_eq!(read, 1 << 20);
    // The command runs on.
    assert_eq!(Arc::strong_count(&held), 1);
    guest.exited(id).await?;
    assert_eq!(running.await??.exit_code, Some(0));
    Ok(())
}

struct HeldBy {
    bytes: Vec<u8>,
    _held: Arc<()>,
}

impl AsRef<[u8]> for HeldBy {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[tokio::test]
async fn output_beyond_the_limit_is_taken_from_the_guest_all_the_same() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let (running, id, _) = running(&agent, &mut guest, collected(1)).await?;
    let full = vec![b'x'; 32 * 1024];
    let mut credit = 256 * 1024;
    for _ in 0..64 {
        while credit < full.len() {
            let frame = guest.frame().await?;
            assert_eq!((frame.stream, frame.kind), (id, Kind::Credit));
            let more: [u8; 4] = frame.payload.as_slice().try_into()?;
            credit += usize::try_from(u32::from_le_bytes(more))?;
        }
        guest.say(id, Kind::Data, 1, &full).await?;
        credit -= full.len();
    }
    guest.exited(id).await?;
    let outcome = running.await??;
    assert_eq!((outcome.stdout.len(), outcome.truncated), (1, true));
    Ok(())
}

#[tokio::test]
async fn a_collected_command_whose_time_is_over_leaves_what_it_wrote() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let (running, id, _) = running(&agent, &mut guest, collected(100)).await?;
    guest.say(id, Kind::Data, 1, b"so far").await?;
    let killed = json!({"exit_code": null, "signal": 9, "ended_by": "timeout"});
    guest.result(id, &killed).await?;
    let Err(ExecError::Deadline { after, output }) = running.await? else {
        anyhow::bail!("its time was over");
    };
    assert_eq!((after, &*output.stdout), (LONG, &b"so far"[..]));
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_not_waited_for_is_cancelled() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let (running, id, _) = running(&agent, &mut guest, collected(1)).await?;
    running.abort();
    let cancel = guest.frame().await?;
    assert_eq!((cancel.stream, cancel.kind), (id, Kind::Cancel));
    Ok(())
}

#[tokio::test]
async fn numbers_that_no_process_ends_with_are_none_of_its() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    for (end, wanted) in [
        (
            json!({"exit_code": 256, "signal": null, "ended_by": "exit"}),
            (None, None),
        ),
        (
            json!({"exit_code": -1, "signal": null, "ended_by": "exit"}),
            (None, None),
        ),
        (
            json!({"exit_code": null, "signal": i32::MAX, "ended_by": "signal"}),
            (None, None),
        ),
        (
            json!({"exit_code": null, "signal": 64, "ended_by": "signal"}),
            (None, Some(64)),
        ),
    ] {
        let (running, id, _) = running(&agent, &mut guest, collected(1)).await?;
        guest.result(id, &end).await?;
        let outcome = running.await??;
        assert_eq!((outcome.exit_code, outcome.signal), wanted, "{end}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_passed_is_refused_before_it_is_sent() {
    let request = || ExecRequest::new(vec!["sh".into()], LONG);
    let mut empty = request();
    empty.argv.clear();
    let mut nul = request();
    nul.argv.push("a\0b".into());
    let mut name = request();
    name.env.insert("A=B".into(), String::new());
    let mut long = request();
    long.argv.push("x".repeat(131_072));
    for request in [empty, nul, name, long] {
        let refused = Command::buffered(&request).map(drop);
        assert!(
            matches!(refused, Err(ExecError::Invalid { .. })),
            "{:?}",
            request.argv.first()
        );
    }
    assert!(Command::buffered(&request()).is_ok());
}
