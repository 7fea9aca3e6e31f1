//! The guest's serial console.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tokio::task::spawn_blocking;
use vmint_cache::FollowedConsole;

use crate::http::code::Code;
use crate::http::openapi;
use crate::http::params::{Name, Params};
use crate::http::problem::Problem;
use crate::http::service::Service;

/// What a guest writes is its own affair: mostly text, mostly UTF-8. Where it is, this says so.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Where it is not, or not known yet, nothing is claimed.
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The newest part of what the guest wrote to its serial console.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/console", operation_id = "read_console", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("follow" = Option<bool>, Query, description = "true: then what comes, until the machine has ended")
    ),
    responses(
        (
            status = 200, description = "As the guest wrote it: text where it is UTF-8; followed, always bytes",
            content((String = "text/plain"), (String = "application/octet-stream"))
        ),
        openapi::Invalid, openapi::UnknownSandbox, openapi::TooManyFollowers
    )
)]
pub(in crate::http) async fn console(
    State(service): State<Service>,
    Name(id): Name,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["follow"])?;
    if params.flag("follow")? {
        let console = service.cache().follow_console(&id).await?;
        let body = Body::from_stream(followed(console));
        return Ok(([(CONTENT_TYPE, BYTES)], body).into_response());
    }
    let bytes = spawn_blocking(move || service.cache().console(&id))
        .await
        .map_err(|_| Problem::new(Code::Internal, "the console could not be read"))??;
    let kind = if std::str::from_utf8(whole_characters(&bytes)).is_ok() {
        TEXT
    } else {
        BYTES
    };
    Ok(([(CONTENT_TYPE, kind)], bytes).into_response())
}

/// The stream; dropped with its connection.
fn followed(console: FollowedConsole) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(console), |console| async move {
        let mut console = console?;
        match console.next().await.transpose()? {
            Ok(bytes) => Some((Ok(Bytes::from(bytes)), Some(console))),
            // The connection breaks off: the client sees that this is not the end.
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// The newest part may begin and end within a character.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    /// A character has three bytes after its first at most.
    const REST_MAX: usize = 3;
    let is_rest = |byte: &&u8| **byte & 0xC0 == 0x80;
    let start = bytes.iter().take(REST_MAX).take_while(is_rest).count();
    let bytes = &bytes[start..];
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_is_a_text() {
        let is_text = |bytes: &[u8]| std::str::from_utf8(whole_characters(bytes)).is_ok();
        let text = "äöü€\u{1F600}".as_bytes();
        for from in 0..text.len() {
            for to in from..text.len() {
                assert!(is_text(&text[from..to]), "{from}..{to}");
            }
        }
        assert!(!is_text(b"a\xffb") && !is_text(b"ab\xff\xff\xff\xff"));
    }
}
