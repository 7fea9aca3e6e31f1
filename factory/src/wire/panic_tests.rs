//! A link whose actor panics.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::{Link, LinkError};

#[tokio::test]
async fn an_actor_that_panics_is_a_closed_link() -> anyhow::Result<()> {
    const LONG: Duration = Duration::from_secs(30);
    let (ours, mut theirs) = UnixStream::pair()?;
    let link = Link::start(ours, 4096, |_| panic!("a mistake"));
    let call = json!({});
    let asked = link.command::<_, Value>("one", &call, LONG);
    let event =
        json!({"event": "STOP", "data": {}, "timestamp": {"seconds": 0, "microseconds": 0}});
    let said = async { theirs.write_all(format!("{event}\n").as_bytes()).await };
    let (answer, said) = tokio::join!(asked, said);
    said?;
    assert_eq!(answer.err(), Some(LinkError::Closed));
    assert_eq!(link.why_dead().await, LinkError::Closed);
    Ok(())
}
