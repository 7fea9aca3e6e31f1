//! Synchronization, credit, and what a guest may not do.

use crate::guest::stream::frame::{MAX_PAYLOAD_BYTES, MAX_STREAMS, WINDOW_BYTES};
use crate::guest::{ExecError, ExecStream, StreamInput, StreamOutput};
use crate::wire::LinkError;

use super::*;

static FULL: [u8; MAX_PAYLOAD_BYTES] = [b'x'; MAX_PAYLOAD_BYTES];
const FRAMES_OF_A_WINDOW: usize = WINDOW_BYTES as usize / MAX_PAYLOAD_BYTES;

/// How a stream ends, after whatever came before.
async fn end(mut stream: ExecStream) -> anyhow::Result<ExecError> {
    loop {
        match stream.output.recv().await {
            Some(StreamOutput::Ended(Err(error))) => return Ok(error),
            Some(StreamOutput::Stdout(_) | StreamOutput::Stderr(_)) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_left_half_said_is_thrown_away() -> anyhow::Result<()> {
    // The beginning of another mark, a frame of a stream that is to come, and half a frame.
    let mut left_over = vec![0xff, 0xff, 255, 0, 16, 0, 0, 0, 1, 2, 3];
    frame::write(&mut left_over, 1, Kind::Data, 1, b"old");
    left_over.extend_from_slice(&[1, 0, 2, 1, 100]);
    left_over.extend_from_slice(&vec![7; 300_000]);
    let (link, mut guest, _agent) = dialled(&left_over).await?;
    let mut stream = link.exec(&command())?;
    let (id, _) = guest.opened().await?;
    guest.say(id, Kind::Data, 1, b"new").await?;
    let first = stream.output.recv().await;
    assert!(
        matches!(&first, Some(StreamOutput::Stdout(bytes)) if bytes == "new"),
        "{first:?}"
    );
    Ok(())
}

#[tokio::test]
async fn frames_may_come_in_pieces_and_strange_ones_are_passed_over() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let mut stream = link.exec(&command())?;
    let (id, _) = guest.opened().await?;
    guest.say(999, Kind::Data, 1, b"nobody's").await?;
    guest.say(65535, Kind::Mark, 0, b"late").await?;
    // A kind of a later protocol.
    guest
        .stream
        .write_all(&[1, 0, 99, 0, 1, 0, 0, 0, 5])
        .await?;
    let mut bytes = Vec::new();
    frame::write(&mut bytes, id, Kind::Data, 1, b"one");
    frame::write(&mut bytes, id, Kind::End, 1, b"");
    frame::write(&mut bytes, id, Kind::Data, 2, b"two");
    for byte in bytes {
        guest.stream.write_all(&[byte]).await?;
        tokio::task::yield_now().await;
    }
    guest.exited(id).await?;
    let mut seen = Vec::new();
    while let Some(output) = stream.output.recv().await {
        seen.push(format!("{output:?}"));
    }
    assert_eq!(
        seen,
        [
            "Stdout(b\"one\")",
            "Stderr(b\"two\")",
            "Ended(Ok(StreamEnd { exit_code: Some(0), signal: None }))"
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_stream_that_nobody_takes_from_holds_up_no_other() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let mut stalled = link.exec(&command())?;
    let (first, _) = guest.opened().await?;
    for _ in 0..FRAMES_OF_A_WINDOW {
        guest.say(first, Kind::Data, 1, &FULL).await?;
    }
    let mut other = link.exec(&command())?;
    let (second, _) = guest.opened().await?;
    guest.say(second, Kind::Data, 1, b"here").await?;
    let got = other.output.recv().await;
    assert!(matches!(got, Some(StreamOutput::Stdout(_))), "{got:?}");
    // Who does not take gives no credit: the next frame is another.
    let _third = link.exec(&command())?;
    guest.opened().await?;
    // Whoever takes gives credit, portion by portion, and gets everything.
    let mut taken = 0;
    let mut credit = 0;
    while taken < WINDOW_BYTES as usize {
        let Some(StreamOutput::Stdout(bytes)) = stalled.output.recv().await else {
            anyhow::bail!("it ended");
        };
        taken += bytes.len();
    }
    while credit < WINDOW_BYTES / 2 {
        let frame = guest.frame().await?;
        if frame.kind == Kind::Credit {
            assert_eq!((frame.stream, frame.channel), (first, 1));
            let payload: [u8; 4] = frame.payload.as_slice().try_into()?;
            credit += u32::from_le_bytes(payload);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_guest_that_sends_more_than_it_may_loses_the_connection() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let one = link.exec(&command())?;
    let two = link.exec(&command())?;
    let (first, _) = guest.opened().await?;
    // Nobody takes: some pieces are on their way to the taker, and the rest is over the window.
    for _ in 0..4 * FRAMES_OF_A_WINDOW {
        if guest.say(first, Kind::Data, 1, &FULL).await.is_err() {
            break;
        }
    }
    for stream in [one, two] {
        let error = end(stream).await?;
        let ExecError::Guest(GuestError::Channel { source, .. }) = &error else {
            anyhow::bail!("{error:?}");
        };
        assert!(
            matches!(source, LinkError::Malformed { reason } if reason.contains("more on channel 1")),
            "{source}"
        );
    }
    assert!(link.is_lost());
    assert!(link.exec(&command()).is_err());
    Ok(())
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_connection() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let stream = link.exec(&command())?;
    guest.stream.write_all(&[1, 0, 2, 1, 1, 128, 0, 0]).await?;
    let error = end(stream).await?;
    assert!(
        matches!(error, ExecError::Guest(GuestError::Channel { .. })),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_close_in_the_middle_ends_every_stream() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let (one, two) = (link.exec(&command())?, link.exec(&command())?);
    let (first, _) = guest.opened().await?;
    guest.say(first, Kind::Data, 1, b"some").await?;
    guest.stream.write_all(&[2, 0, 2, 1, 100]).await?;
    drop(guest);
    for stream in [one, two] {
        let error = end(stream).await?;
        assert!(
            matches!(
                error,
                ExecError::Guest(GuestError::Closed | GuestError::Channel { .. })
            ),
            "{error:?}"
        );
    }
    assert!(link.is_lost());
    Ok(())
}

#[tokio::test]
async fn streams_end_with_the_agent_and_the_port_is_free_then() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let stream = link.exec(&command())?;
    guest.opened().await?;
    guest.agent.shutdown().await?;
    let error = end(stream).await?;
    assert!(
        matches!(error, ExecError::Guest(GuestError::Closed)),
        "{error:?}"
    );
    assert!(guest.frame().await.is_err(), "the socket is closed");
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_cancelled_and_its_rest_is_thrown_away() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let stream = link.exec(&command())?;
    let (id, _) = guest.opened().await?;
    guest.say(id, Kind::Data, 1, b"some").await?;
    drop(stream);
    let cancel = guest.frame().await?;
    assert_eq!((cancel.stream, cancel.kind), (id, Kind::Cancel));
    // The guest may need credit to say the rest before its result.
    for _ in 0..FRAMES_OF_A_WINDOW - 1 {
        guest.say(id, Kind::Data, 1, &FULL).await?;
    }
    let credit = guest.frame().await?;
    assert_eq!((credit.stream, credit.kind), (id, Kind::Credit));
    guest.exited(id).await?;
    let next = link.exec(&command())?;
    loop {
        let frame = guest.frame().await?;
        if frame.kind == Kind::Open {
            assert_ne!(frame.stream, id, "late frames are nobody's");
            break;
        }
    }
    drop(next);
    Ok(())
}

#[tokio::test]
async fn streams_are_bounded_and_free_again_after_their_results() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(link.exec(&command())?);
        guest.opened().await?;
    }
    let refusal = link.exec(&command()).map(drop);
    assert!(
        matches!(&refusal, Err(ExecError::Guest(GuestError::Refused { reason, .. })) if reason.contains("64")),
        "{refusal:?}"
    );
    guest.exited(7).await?;
    let ended = streams[6].output.recv().await;
    assert!(matches!(ended, Some(StreamOutput::Ended(Ok(_)))));
    link.exec(&command())?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_end_a_cancelled_stream_is_dialled_anew() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let stream = link.exec(&command())?;
    guest.opened().await?;
    drop(stream);
    assert_eq!(guest.frame().await?.kind, Kind::Cancel);
    assert!(!link.is_lost());
    tokio::time::advance(2 * LONG).await;
    assert!(link.is_lost());
    assert!(guest.frame().await.is_err(), "the socket is closed");
    Ok(())
}

#[tokio::test]
async fn input_waits_for_credit_and_a_resize_does_not_wait_for_it() -> anyhow::Result<()> {
    let (link, mut guest, _agent) = dialled(b"").await?;
    let stream = link.exec(&command())?;
    let (id, _) = guest.opened().await?;
    let much = bytes::Bytes::from(vec![b'i'; WINDOW_BYTES as usize + 10]);
    stream.input.send(StreamInput::Bytes(much)).await?;
    stream.input.send(StreamInput::Bytes("end".into())).await?;
    stream.input.send(StreamInput::End).await?;
    let mut got = 0;
    while got < WINDOW_BYTES as usize {
        let frame = guest.frame().await?;
        assert_eq!(
            (frame.stream, frame.kind, frame.channel),
            (id, Kind::Data, 0)
        );
        got += frame.payload.len();
    }
    assert_eq!(got, WINDOW_BYTES as usize);
    let size = crate::guest::WindowSize {
        rows: 24,
        columns: 300,
    };
    stream.input.send(StreamInput::Resize(size)).await?;
    let resize = guest.frame().await?;
    assert_eq!(
        (resize.kind, resize.payload),
        (Kind::Resize, vec![24, 0, 44, 1])
    );
    guest
        .say(id, Kind::Credit, 0, &100_u32.to_le_bytes())
        .await?;
    let mut rest = Vec::new();
    loop {
        let frame = guest.frame().await?;
        match frame.kind {
            Kind::Data => rest.extend(frame.payload),
            kind => {
                assert_eq!(kind, Kind::End);
                break;
            }
        }
    }
    assert_eq!(rest, b"iiiiiiiiiiend");
    Ok(())
}
