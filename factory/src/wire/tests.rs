//! A link against a scripted peer at a real socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{Link, LinkError};

const LONG: Duration = Duration::from_secs(30);
const MAX_LINE_BYTES: usize = 4096;

/// The other end of a link.
struct Peer {
    socket: BufReader<UnixStream>,
    events: Arc<Mutex<Vec<String>>>,
}

fn link() -> std::io::Result<(Link, Peer)> {
    let (ours, theirs) = UnixStream::pair()?;
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let link = Link::start(ours, MAX_LINE_BYTES, move |event| {
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
    tokio::spawn(async move { link.command(name, &json!({}), after).await })
}

#[tokio::test]
async fn replies_find_their_callers_in_any_order() -> anyhow::Result<()> {
    let (link, mut peer) = link()?;
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
    let (link, mut peer) = link()?;
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
    let (link, mut peer) = link()?;
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
    let (link, mut peer) = link()?;
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
    let (link, mut peer) = link()?;
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
    let (link, mut peer) = link()?;
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
    let (link, mut peer) = link()?;
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
    let (link, mut peer) = link()?;
    let one = ask(&link, "one", LONG);
    peer.request().await?;
    peer.say("{\"return\": ").await?;
    drop(peer);
    assert_eq!(one.await?, Err(LinkError::Closed));
    assert_eq!(link.why_dead().await, LinkError::Closed);
    Ok(())
}

#[tokio::test]
async fn nonsense_ends_the_link() -> anyhow::Result<()> {
    let (link, mut peer) = link()?;
    peer.say("nonsense\n").await?;
    assert!(matches!(link.why_dead().await, LinkError::Malformed { .. }));
    Ok(())
}

#[tokio::test]
async fn both_sides_may_have_much_to_say_at_once() -> anyhow::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let link = Link::start(ours, 32 << 20, |_| {});
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
    let echoed: String = link.command("echo", &arguments, LONG).await?;
    assert_eq!(echoed.len(), 4 << 20);
    peer.await??;
    Ok(())
}
