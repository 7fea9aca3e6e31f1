//! A link against a scripted peer at a real socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{Call, Link, LinkError, LinkSettings, Strays};

const LONG: Duration = Duration::from_secs(30);
const MAX_LINE_BYTES: usize = 4096;
const STRAY_MAX_BYTES: usize = 1 << 20;
/// What a link has had enough of long before.
const NOISE_MAX_BYTES: usize = 64 * STRAY_MAX_BYTES;

/// The other end of a link.
struct Peer {
    socket: BufReader<UnixStream>,
    events: Arc<Mutex<Vec<String>>>,
}

fn link(strict: bool) -> std::io::Result<(Link, Peer)> {
    let (ours, theirs) = UnixStream::pair()?;
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let settings = LinkSettings {
        max_line_bytes: MAX_LINE_BYTES,
        strays: if strict {
            Strays::Refused
        } else {
            Strays::Skipped {
                max_bytes: STRAY_MAX_BYTES,
            }
        },
    };
    let link = Link::start(ours, settings, move |event| {
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event.name);
    });
    Ok((
        link,
        Peer {
            socket: BufReader::new(theirs),
            events,
        },
    ))
}

impl Peer {
    /// The next request.
    async fn request(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.socket.read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        Ok(self.socket.write_all(bytes.as_ref()).await?)
    }

    async fn answer(&mut self, request: &Value, value: Value) -> anyhow::Result<()> {
        let line = json!({"return": value, "id": request["id"]});
        self.say(format!("{line}\n")).await
    }
}

/// Sends a command in the background.
fn ask(
    link: &Link,
    name: &'static str,
    after: Duration,
) -> tokio::task::JoinHandle<Result<Value, LinkError>> {
    let link = link.clone();
    tokio::spawn(async move { link.command(&Call::named(name, &json!({})), after).await })
}

#[tokio::test]
async fn replies_find_their_callers_in_any_order() -> anyhow::Result<()> {
    let (link, mut peer) = link(true)?;
    let one = ask(&link, "one", LONG);
    let first = peer.request().await?;
    let two = ask(&link, "two", LONG);
    let second = peer.request().await?;
    peer.answer(&second, json!(2)).await?;
    peer.answer(&first, json!(1)).await?;
    assert_eq!((one.await??, two.await??), (json!(1), json!(2)));
    Ok(())
}

#[tokio::test]
async fn a_late_reply_is_thrown_away() -> anyhow::Result<()> {
    let (link, mut peer) = link(true)?;
    let late = ask(&link, "late", Duration::from_millis(1));
    let first = peer.request().await?;
    assert_eq!(
        late.await?,
        Err(LinkError::Deadline {
            after: Duration::from_millis(1)
        })
    );
    peer.answer(&first, json!("late")).await?;
    let next = ask(&link, "next", LONG);
    let second = peer.request().await?;
    peer.answer(&second, json!("in time")).await?;
    assert_eq!(next.await??, json!("in time"));
    Ok(())
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_link_working() -> anyhow::Result<()> {
    let (link, mut peer) = link(true)?;
    let gone = ask(&link, "gone", LONG);
    let first = peer.request().await?;
    gone.abort();
    assert!(gone.await.is_err());
    peer.answer(&first, json!({})).await?;
    let next = ask(&link, "next", LONG);
    let second = peer.request().await?;
    peer.answer(&second, json!(true)).await?;
    assert_eq!(next.await??, json!(true));
    Ok(())
}

#[tokio::test]
async fn unknown_events_and_fields_are_passed_over() -> anyhow::Result<()> {
    let (link, mut peer) = link(true)?;
    let one = ask(&link, "one", LONG);
    let request = peer.request().await?;
    peer.say("{\"QMP\": {\"version\": {}}}\r\n").await?;
    peer.say("{\"event\": \"NEVER_HEARD_OF\", \"data\": {\"x\": [1]}, \"timestamp\": {}}\r\n")
        .await?;
    let line = json!({"return": {"new": 1}, "id": request["id"], "later": "field"});
    peer.say(format!("{line}\r\n")).await?;
    assert_eq!(one.await??, json!({"new": 1}));
    assert_eq!(
        *peer.events.lock().unwrap_or_else(PoisonError::into_inner),
        ["NEVER_HEARD_OF"]
    );
    Ok(())
}

#[tokio::test]
async fn a_line_may_come_in_pieces() -> anyhow::Result<()> {
    let (link, mut peer) = link(true)?;
    let one = ask(&link, "one", LONG);
    let request = peer.request().await?;
    let line = format!("{}\n", json!({"return": "whole", "id": request["id"]}));
    for byte in line.as_bytes() {
        peer.say([*byte]).await?;
        tokio::task::yield_now().await;
    }
    assert_eq!(one.await??, json!("whole"));
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_the_other_sides_words() -> anyhow::Result<()> {
    let (link, mut peer) = link(true)?;
    let one = ask(&link, "one", LONG);
    let request = peer.request().await?;
    let line =
        json!({"error": {"class": "GenericError", "desc": "no such thing"}, "id": request["id"]});
    peer.say(format!("{line}\n")).await?;
    assert_eq!(
        one.await?,
        Err(LinkError::Refused("no such thing".to_owned()))
    );
    Ok(())
}

#[tokio::test]
async fn an_endless_line_ends_the_link_and_everybody_is_told() -> anyhow::Result<()> {
    let (link, mut peer) = link(true)?;
    let one = ask(&link, "one", LONG);
    peer.request().await?;
    let two = ask(&link, "two", LONG);
    peer.request().await?;
    peer.say(vec![b'x'; 3 * MAX_LINE_BYTES]).await?;
    let too_long = LinkError::TooLong {
        max_bytes: MAX_LINE_BYTES,
    };
    assert_eq!(one.await?, Err(too_long.clone()));
    assert_eq!(two.await?, Err(too_long.clone()));
    assert_eq!(ask(&link, "three", LONG).await?, Err(too_long));
    Ok(())
}

#[tokio::test]
async fn a_close_in_the_middle_of_a_line_is_a_close() -> anyhow::Result<()> {
    let (link, mut peer) = link(true)?;
    let one = ask(&link, "one", LONG);
    peer.request().await?;
    peer.say("{\"return\": ").await?;
    drop(peer);
    assert_eq!(one.await?, Err(LinkError::Closed));
    assert_eq!(link.why_dead().await, LinkError::Closed);
    Ok(())
}

#[tokio::test]
async fn a_link_that_is_of_no_use_any_more_ends_and_lets_its_socket_go() -> anyhow::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let (lose, lost) = tokio::sync::oneshot::channel::<()>();
    let settings = LinkSettings {
        max_line_bytes: MAX_LINE_BYTES,
        strays: Strays::Refused,
    };
    let link = Link::start_until(ours, settings, |_| {}, async {
        drop(lost.await);
        LinkError::Closed
    });
    let mut peer = BufReader::new(theirs);
    let waiting = ask(&link, "waiting", LONG);
    let mut line = String::new();
    peer.read_line(&mut line).await?;
    assert!(!link.is_dead());
    drop(lose);
    assert_eq!(waiting.await?, Err(LinkError::Closed));
    assert!(link.is_dead());
    line.clear();
    assert_eq!(
        peer.read_line(&mut line).await?,
        0,
        "the next connection finds the way free"
    );
    Ok(())
}

#[tokio::test]
async fn nonsense_ends_a_strict_link_and_no_other() -> anyhow::Result<()> {
    let (strict, mut peer) = link(true)?;
    peer.say("nonsense\n").await?;
    assert!(matches!(
        strict.why_dead().await,
        LinkError::Malformed { .. }
    ));

    let (tolerant, mut peer) = link(false)?;
    peer.say("\"rest\"}\nnonsense\n\u{0}\n").await?;
    let one = ask(&tolerant, "one", LONG);
    let request = peer.request().await?;
    // The rest of an earlier conversation may stand right before the sentinel.
    peer.say(b"rubbish\xff").await?;
    peer.answer(&request, json!(1)).await?;
    assert_eq!(one.await??, json!(1));
    Ok(())
}

#[tokio::test]
async fn both_sides_may_have_much_to_say_at_once() -> anyhow::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let settings = LinkSettings {
        max_line_bytes: 32 << 20,
        strays: Strays::Refused,
    };
    let link = Link::start(ours, settings, |_| {});
    let big = "y".repeat(4 << 20);
    let arguments = json!({"input": big});
    let peer = tokio::spawn(async move {
        let mut socket = BufReader::new(theirs);
        // It talks before it reads: more than both sockets' buffers hold.
        let noise = format!(
            "{}\n",
            json!({"event": "NOISE", "data": {"z": "z".repeat(4 << 20)}})
        );
        socket.write_all(noise.as_bytes()).await?;
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        let request: Value = serde_json::from_str(&line)?;
        let answer = format!(
            "{}\n",
            json!({"return": request["arguments"]["input"], "id": request["id"]})
        );
        socket.write_all(answer.as_bytes()).await?;
        anyhow::Ok(())
    });
    let echoed: String = link.command(&Call::named("echo", &arguments), LONG).await?;
    assert_eq!(echoed.len(), 4 << 20);
    peer.await??;
    Ok(())
}

#[tokio::test]
async fn a_reply_may_be_as_long_as_its_command_allows_and_no_longer() -> anyhow::Result<()> {
    let (link, mut peer) = link(false)?;
    let long = "x".repeat(2 * MAX_LINE_BYTES);
    let asks = |link: &Link, max: usize| {
        let link = link.clone();
        tokio::spawn(async move {
            let none = json!({});
            let call = Call::named("long", &none).answered_within(max);
            link.command::<_, String>(&call, LONG).await
        })
    };
    let allowed = asks(&link, 3 * MAX_LINE_BYTES);
    let request = peer.request().await?;
    peer.answer(&request, json!(long)).await?;
    assert_eq!(allowed.await??, long);

    // Nothing under way allows it now: it is skipped, and what comes after is understood.
    let refused = ask(&link, "short", LONG);
    let request = peer.request().await?;
    peer.answer(&request, json!(long)).await?;
    peer.answer(&request, json!("short")).await?;
    assert_eq!(refused.await??, json!("short"));
    Ok(())
}

#[tokio::test]
async fn a_long_reply_whose_caller_gave_up_is_still_read() -> anyhow::Result<()> {
    let (link, mut peer) = link(false)?;
    let none = json!({});
    let call = Call::named("long", &none).answered_within(STRAY_MAX_BYTES * 2);
    let gave_up = link.command::<_, String>(&call, Duration::from_millis(1));
    assert!(matches!(gave_up.await, Err(LinkError::Deadline { .. })));
    let late = peer.request().await?;
    let next = ask(&link, "next", LONG);
    let request = peer.request().await?;
    peer.answer(&late, json!("x".repeat(STRAY_MAX_BYTES + 1)))
        .await?;
    peer.answer(&request, json!(1)).await?;
    assert_eq!(next.await??, json!(1));
    Ok(())
}

#[tokio::test]
async fn a_peer_that_only_says_what_nothing_asked_for_loses_its_link() -> anyhow::Result<()> {
    for noise in [
        "nonsense\n".to_owned(),
        "\n".to_owned(),
        "{\"return\": 1, \"id\": 0}\n".to_owned(),
        "{\"event\": \"E\"}\n".to_owned(),
        "{\"QMP\": {}}\n".to_owned(),
        format!("{}\n", "x".repeat(2 * MAX_LINE_BYTES)),
        "endless".to_owned(),
    ] {
        let (link, peer) = link(false)?;
        let waiting = ask(&link, "waiting", LONG);
        let mut socket = peer.socket.into_inner();
        let piece = noise.repeat(1 + 4096 / noise.len());
        // It is written to until the link has had enough, and has closed.
        let mut written_bytes = 0;
        while socket.write_all(piece.as_bytes()).await.is_ok() {
            written_bytes += piece.len();
            assert!(
                written_bytes < NOISE_MAX_BYTES,
                "{noise:.20}: it is read on and on"
            );
        }
        let enough = LinkError::Stray {
            max_bytes: STRAY_MAX_BYTES,
        };
        assert_eq!(waiting.await?, Err(enough.clone()), "{noise:.20}");
        assert_eq!(link.why_dead().await, enough);
    }
    Ok(())
}

#[tokio::test]
async fn replies_that_were_asked_for_make_up_for_strays() -> anyhow::Result<()> {
    let (link, mut peer) = link(false)?;
    let much = format!("{}\n", "x".repeat(STRAY_MAX_BYTES * 3 / 4));
    for _ in 0..3 {
        let one = ask(&link, "one", LONG);
        let request = peer.request().await?;
        peer.say(&much).await?;
        peer.answer(&request, json!(1)).await?;
        assert_eq!(one.await??, json!(1));
    }
    Ok(())
}
