//! Credit, turns, and what a guest may not do.

use vmint_guest_protocol::frame::PAYLOAD_MAX_BYTES;
use vmint_guest_protocol::{STREAMS_MAX, WINDOW_BYTES};

use super::*;
use crate::guest::{ExecError, ExecStream, StreamInput, StreamOutput};
use crate::wire::LinkError;

static FULL: [u8; PAYLOAD_MAX_BYTES] = [b'x'; PAYLOAD_MAX_BYTES];
const FRAMES_OF_A_WINDOW: usize = WINDOW_BYTES as usize / PAYLOAD_MAX_BYTES;

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
async fn frames_may_come_in_pieces_and_strange_ones_are_passed_over() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let mut stream = link.exec_stream(&command())?;
    let (id, _) = guest.opened().await?;
    guest.say(999, Kind::Data, 1, b"nobody's").await?;
    // A kind of a later protocol.
    let mut later = guest.bytes(1, Kind::Data, 0, b"?");
    later[2] = 99;
    guest.write(&later).await?;
    // A reply that nothing asked for.
    guest.reply(&json!({"id": 77, "return": {}})).await?;
    let bytes = [
        guest.bytes(id, Kind::Data, 1, b"one"),
        guest.bytes(id, Kind::End, 1, b""),
        guest.bytes(id, Kind::Data, 2, b"two"),
    ];
    for byte in bytes.concat() {
        guest.write(&[byte]).await?;
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
    let (link, mut guest) = connected().await?;
    let mut stalled = link.exec_stream(&command())?;
    let (first, _) = guest.opened().await?;
    for _ in 0..FRAMES_OF_A_WINDOW {
        guest.say(first, Kind::Data, 1, &FULL).await?;
    }
    let mut other = link.exec_stream(&command())?;
    let (second, _) = guest.opened().await?;
    guest.say(second, Kind::Data, 1, b"here").await?;
    let got = other.output.recv().await;
    assert!(matches!(got, Some(StreamOutput::Stdout(_))), "{got:?}");
    // Who does not take gives no credit: the next frame is another.
    let _third = link.exec_stream(&command())?;
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
    let (link, mut guest) = connected().await?;
    let one = link.exec_stream(&command())?;
    let two = link.exec_stream(&command())?;
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
    assert!(link.exec_stream(&command()).is_err());
    Ok(())
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() -> anyhow::Result<()> {
    let long = [1, 0, 2, 1, 1, 128, 0, 0].to_vec();
    let mut strange = Vec::new();
    frame::write(&mut strange, &[0; 4], 1, Kind::Data, 1, b"x");
    let mark = Mark::own([3; 16]).bytes().to_vec();
    for bytes in [long, strange, mark] {
        let (link, mut guest) = connected().await?;
        let stream = link.exec_stream(&command())?;
        guest.write(&bytes).await?;
        let error = end(stream).await?;
        assert!(
            matches!(error, ExecError::Guest(GuestError::Channel { .. })),
            "{error:?}"
        );
        assert!(link.is_lost());
    }
    Ok(())
}

#[tokio::test]
async fn a_close_in_the_middle_ends_every_stream() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let (one, two) = (link.exec_stream(&command())?, link.exec_stream(&command())?);
    let (first, _) = guest.opened().await?;
    guest.say(first, Kind::Data, 1, b"some").await?;
    guest.write(&[2, 0, 2, 1, 100]).await?;
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
async fn everything_ends_with_the_agent_and_the_port_is_free_then() -> anyhow::Result<()> {
    let port = port()?;
    let (lose, losses) = watch::channel(0);
    let dialling = port.dial(losses);
    let mut guest = port.accept().await?;
    let mark = guest.marked().await?;
    guest.write(&mark.bytes()).await?;
    let link = dialling.await??;
    let stream = link.exec_stream(&command())?;
    guest.opened().await?;
    let ping = tokio::spawn({
        let link = link.clone();
        async move { link.ping(LONG).await }
    });
    guest.request().await?;
    assert!(!link.is_lost());
    lose.send_replace(1);
    let error = end(stream).await?;
    assert!(
        matches!(error, ExecError::Guest(GuestError::AgentEnded)),
        "{error:?}"
    );
    let error = ping.await?.expect_err("it will not be answered");
    assert!(matches!(error, GuestError::AgentEnded), "{error:?}");
    assert!(guest.frame().await.is_err(), "the socket is closed");
    assert!(link.is_lost());
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_cancelled_and_its_rest_is_thrown_away() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let stream = link.exec_stream(&command())?;
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
    let next = link.exec_stream(&command())?;
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
    let (link, mut guest) = connected().await?;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(link.exec_stream(&command())?);
        guest.opened().await?;
    }
    let refusal = link.exec_stream(&command()).map(drop);
    assert!(
        matches!(
            &refusal,
            Err(ExecError::Guest(GuestError::TooManyStreams { limit: 256 }))
        ),
        "{refusal:?}"
    );
    guest.exited(7).await?;
    let ended = streams[6].output.recv().await;
    assert!(matches!(ended, Some(StreamOutput::Ended(Ok(_)))));
    link.exec_stream(&command())?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_end_cancelled_streams_is_dialled_again_when_all_are_taken()
-> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(link.exec_stream(&command())?);
        guest.opened().await?;
    }
    drop(streams.pop());
    assert_eq!(guest.frame().await?.kind, Kind::Cancel);
    tokio::time::advance(LONG / 2).await;
    assert!(!link.is_lost());
    // The others go on for some seconds more.
    tokio::time::advance(LONG / 2 + Duration::from_secs(1)).await;
    assert!(link.is_lost());
    assert!(guest.frame().await.is_err(), "the socket is closed");
    Ok(())
}

#[tokio::test]
async fn replies_may_come_in_any_order() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let mut pings = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..2 {
        let link = link.clone();
        pings.push(tokio::spawn(async move { link.ping(LONG).await }));
        asked.push(guest.request().await?);
    }
    guest.answer(&asked[1], &json!({})).await?;
    pings.remove(1).await??;
    guest.answer(&asked[0], &json!({})).await?;
    pings.remove(0).await??;
    Ok(())
}

#[tokio::test]
async fn input_waits_for_credit_and_a_resize_does_not_wait_for_it() -> anyhow::Result<()> {
    let (link, mut guest) = connected().await?;
    let stream = link.exec_stream(&command())?;
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
