//! JSON bodies: of a known maximum, within a deadline, with known fields only.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use bytes::BytesMut;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::code::Code;
use super::limits::{BODY_READ_TIMEOUT, DISCARD_IDLE, DISCARD_MAX_BYTES, JSON_BODY_MAX_BYTES};
use super::problem::Problem;

/// What can come as a body.
pub(super) trait Payload: DeserializeOwned {
    /// Its maximum.
    const MAX_BYTES: usize = JSON_BODY_MAX_BYTES;
    /// What no body at all means, where that means something.
    const EMPTY: Option<fn() -> Self> = None;
}

/// A body, read.
pub(super) struct Json<T>(pub(super) T);

impl<T: Payload, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let whole = Whole::from_request(request, state).await?;
        Ok(Self(whole.value))
    }
}

/// A body, read, together with its bytes.
pub(super) struct Whole<T> {
    pub(super) value: T,
    pub(super) bytes: Bytes,
}

impl<T: Payload, S: Sync> FromRequest<S> for Whole<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let bytes = read(&head.headers, body, T::MAX_BYTES).await?;
        let value = match T::EMPTY {
            Some(empty) if bytes.is_empty() => empty(),
            _ => parse(&head.headers, &bytes)?,
        };
        Ok(Self { value, bytes })
    }
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Err(Problem::invalid("the request needs a body: a JSON object"));
    }
    if !is_json(headers) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "a body needs Content-Type: application/json",
        ));
    }
    // serde would also take a list for an object, its fields by position.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Problem::invalid("the body must be a JSON object"));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::invalid(format!("the body is not valid: {error}")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
}

/// The whole body, as long as it is within its maximum.
async fn read(headers: &HeaderMap, mut body: Body, max: usize) -> Result<Bytes, Problem> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|n| n.to_str().ok())
        .and_then(|n| n.parse::<usize>().ok());
    let too_large = || {
        Problem::new(
            Code::TooLarge,
            format!("the body is larger than {max} bytes"),
        )
    };
    if declared.is_some_and(|n| n > max) {
        // A client that asked first (Expect: 100-continue) has not begun to write.
        if !headers.contains_key(EXPECT) {
            discard(body).await;
        }
        return Err(too_large());
    }
    let collected = timeout(BODY_READ_TIMEOUT, collect(&mut body, max, declared)).await;
    let collected = collected.unwrap_or_else(|_| {
        Err(Problem::invalid(format!(
            "the body did not arrive within {} s",
            BODY_READ_TIMEOUT.as_secs()
        )))
    })?;
    match collected {
        Some(bytes) => Ok(bytes),
        None => {
            discard(body).await;
            Err(too_large())
        }
    }
}

/// The whole body; none when it is larger than it may be.
async fn collect(
    body: &mut Body,
    max: usize,
    declared: Option<usize>,
) -> Result<Option<Bytes>, Problem> {
    let mut bytes = BytesMut::with_capacity(declared.unwrap_or(0));
    while let Some(data) = next(body).await? {
        if bytes.len() + data.len() > max {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes.freeze()))
}

/// The next piece of a body.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    match body.frame().await {
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(Problem::invalid(format!("the body broke off: {error}"))),
        None => Ok(None),
    }
}

/// Reads on while the client writes, so that it gets to reading the answer. One that only said how much it would write
/// is answered at once.
async fn discard(mut body: Body) {
    let reading = async {
        let mut left = DISCARD_MAX_BYTES;
        while let Ok(Ok(Some(data))) = timeout(DISCARD_IDLE, next(&mut body)).await {
            match left.checked_sub(data.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // The refusal comes in any case.
    let _ = timeout(BODY_READ_TIMEOUT, reading).await;
}
