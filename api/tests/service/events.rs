//! What the service has told its followers.

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::service::Service;

/// The data of the first events of a kind, from the first event of the service on: as many as are waited for.
pub async fn events(service: &Service<'_>, kind: &str, count: usize) -> anyhow::Result<Vec<Value>> {
    let stream = UnixStream::connect(service.place.run_dir().join("api.sock")).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/v1/events")
        .header("host", "localhost")
        .header("last-event-id", "0")
        .body(Empty::<Bytes>::new())?;
    let mut body = sender.send_request(request).await?.into_body();
    let mut text = String::new();
    loop {
        let told = data_of(&text, kind)?;
        if told.len() >= count {
            return Ok(told);
        }
        let frame = body.frame().await;
        let frame = frame.ok_or_else(|| anyhow::anyhow!("the events end: {text}"))??;
        let bytes = frame.into_data().unwrap_or_default();
        text.push_str(std::str::from_utf8(&bytes)?);
    }
}

fn data_of(text: &str, kind: &str) -> anyhow::Result<Vec<Value>> {
    let name = format!("event: {kind}");
    // What is behind the last empty line is not whole yet.
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let ours = whole
        .split("\n\n")
        .filter(|event| event.lines().any(|line| line == name));
    let data = ours.filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")));
    data.map(|data| Ok(serde_json::from_str(data)?)).collect()
}
