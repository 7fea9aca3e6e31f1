//! The beginning of a connection.

use vmint_guest_protocol::frame::{FRAME_MAX_BYTES, MARK_BYTES};
use vmint_guest_protocol::{PROTOCOL, PROTOCOL_OLDEST};

use super::*;

#[tokio::test]
async fn the_rest_of_another_conversation_is_passed_over() -> anyhow::Result<()> {
    // The beginning of another mark, a frame with another seal, and half a frame.
    let mut left_over = vec![0xff, 0xff, 255, 0, 20, 0, 0, 0, 1, 2, 3];
    frame::write(&mut left_over, &[9; 4], 1, Kind::Data, 1, b"old");
    left_over.extend_from_slice(&[1, 0, 2, 1, 100]);
    left_over.extend_from_slice(&vec![7; 300_000]);
    let (agent, mut guest) = connected_after(&left_over).await?;
    let ping = tokio::spawn(async move { agent.ping(LONG).await });
    let asked = guest.request().await?;
    assert_eq!(asked["execute"], "ping");
    guest.answer(&asked, &json!({})).await?;
    ping.await??;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_answers_is_given_up_at_the_deadline() -> anyhow::Result<()> {
    let port = port()?;
    let deadline = Instant::now() + Duration::from_secs(12);
    let error = Agent::connect(&port.path, &never_lost(), deadline).await;
    assert_eq!(
        error.expect_err("it is silent").to_string(),
        "the guest agent did not answer the mark of a connection within 12 s"
    );
    Ok(())
}

/// A guest that waits for the rest of a frame takes the first mark for it.
#[tokio::test(start_paused = true)]
async fn a_mark_that_is_taken_for_the_rest_of_a_frame_is_followed_by_another() -> anyhow::Result<()>
{
    let port = port()?;
    let begun = Instant::now();
    let dialling = port.dial(never_lost());
    let mut guest = port.accept().await?;
    guest.seal = Some([1, 2, 3, 4]);
    let half = guest.bytes(1, Kind::Data, 0, &[5; 32 * 1024]);
    guest.incoming = half[..20].to_vec();
    // It finds both, one behind the other, and answers both.
    for _ in 0..2 {
        let mark = guest.marked().await?;
        assert!(begun.elapsed() >= Duration::from_millis(250));
        guest.write(&mark.bytes()).await?;
    }
    dialling.await??;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn marks_come_after_twice_the_time_each_and_the_last_one_counts() -> anyhow::Result<()> {
    let port = port()?;
    let begun = Instant::now();
    let dialling = port.dial(never_lost());
    let mut guest = port.accept().await?;
    let first = guest.marked().await?;
    let mut bytes = vec![0; FRAME_MAX_BYTES + MARK_BYTES];
    guest.socket.read_exact(&mut bytes).await?;
    assert_eq!(begun.elapsed().as_millis() / 10, 25, "after 250 ms");
    let (zeros, mark) = bytes.split_at(FRAME_MAX_BYTES);
    assert!(zeros.iter().all(|byte| *byte == 0));
    let Found::At(second, MARK_BYTES) = frame::find_mark(mark) else {
        anyhow::bail!("no mark");
    };
    assert_ne!(first.nonce, second.nonce);
    guest.socket.read_exact(&mut bytes).await?;
    assert_eq!(begun.elapsed().as_millis() / 10, 75, "after 500 ms more");
    let Found::At(third, _) = frame::find_mark(&bytes[FRAME_MAX_BYTES..]) else {
        anyhow::bail!("no mark");
    };
    // Late answers to the first two are passed over.
    for mark in [first, second] {
        guest.write(&mark.bytes()).await?;
    }
    tokio::task::yield_now().await;
    assert!(!dialling.is_finished());
    guest.write(&third.bytes()).await?;
    dialling.await??;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_ended_before_it_answered_is_dialled_again() -> anyhow::Result<()> {
    let port = port()?;
    let (lose, losses) = watch::channel(0);
    let dialling = port.dial(losses);
    // The first agent takes the mark with it.
    let mut first = port.accept().await?;
    first.marked().await?;
    lose.send_replace(1);
    let mut second = port.accept().await?;
    let mark = second.marked().await?;
    second.write(&mark.bytes()).await?;
    dialling.await??;
    Ok(())
}

#[tokio::test]
async fn a_guest_that_shares_no_protocol_is_refused_in_clear_words() -> anyhow::Result<()> {
    for (newest, oldest, words) in [
        (PROTOCOL + 7, PROTOCOL, None),
        (
            PROTOCOL + 7,
            PROTOCOL + 1,
            Some("use the guest that came with it"),
        ),
        (PROTOCOL_OLDEST - 1, 1, Some("earlier version")),
    ] {
        let port = port()?;
        let dialling = port.dial(never_lost());
        let mut guest = port.accept().await?;
        let Mark { nonce, .. } = guest.marked().await?;
        let mark = Mark {
            nonce,
            newest,
            oldest,
        };
        guest.write(&mark.bytes()).await?;
        match (dialling.await?, words) {
            (Ok(agent), None) => assert_eq!(agent.protocol(), newest),
            (Err(error), Some(words)) => {
                let text = error.to_string();
                assert!(text.contains(words), "{text}");
                assert!(text.contains(&format!("protocol {oldest} to {newest}")));
            }
            (other, _) => anyhow::bail!("{newest} {oldest}: {other:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_guest_that_only_says_what_is_no_mark_is_given_up() -> anyhow::Result<()> {
    let port = port()?;
    let dialling = port.dial(never_lost());
    let mut guest = port.accept().await?;
    let noise = vec![7; 1 << 16];
    while guest.write(&noise).await.is_ok() {}
    let error = dialling.await?.expect_err("no mark came");
    assert!(matches!(error, GuestError::Channel { .. }), "{error:?}");
    Ok(())
}
