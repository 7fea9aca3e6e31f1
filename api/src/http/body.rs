//! JSON bodies: of a known maximum, within a deadline, with known fields only.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use bytes::BytesMut;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::budget::BodyShare;
use super::code::Code;
use super::limits::{
    BODY_READ_TIMEOUT, BODY_RESERVE_BYTES, DISCARD_IDLE, DISCARD_MAX_BYTES, JSON_BODY_MAX_BYTES,
};
use super::problem::Problem;
use super::service::Service;
use super::users::User;

/// What can come as a body.
pub(super) trait Payload: DeserializeOwned {
    /// Its maximum.
    const MAX_BYTES: usize = JSON_BODY_MAX_BYTES;
    /// What no body at all means, where that means something.
    const EMPTY: Option<fn() -> Self> = None;
}

/// A body, read, and its share of the memory that all bodies may have: a handler holds both for as long as it works.
pub(super) struct Json<T>(pub(super) T, pub(super) BodyShare);

impl<T: Payload> FromRequest<Service> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Service) -> Result<Self, Problem> {
        let (mut head, body) = request.into_parts();
        let user = User::from_request_parts(&mut head, service).await?;
        let mut share = service.bodies().share(user);
        let bytes = read(&head.headers, body, T::MAX_BYTES, &mut share).await?;
        let value = match T::EMPTY {
            Some(empty) if bytes.is_empty() => empty(),
            _ => parse(&head.headers, &bytes)?,
        };
        Ok(Self(value, share))
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
async fn read(
    headers: &HeaderMap,
    mut body: Body,
    max: usize,
    share: &mut BodyShare,
) -> Result<Bytes, Problem> {
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
    let collected = timeout(BODY_READ_TIMEOUT, collect(&mut body, max, declared, share)).await;
    let collected = collected.unwrap_or_else(|_| {
        Err(Problem::invalid(format!(
            "the body did not arrive within {} s",
            BODY_READ_TIMEOUT.as_secs()
        )))
    })?;
    match collected {
        Collected::Whole(bytes) => Ok(bytes),
        Collected::TooLarge => {
            discard(body).await;
            Err(too_large())
        }
        Collected::NoRoom(problem) => {
            discard(body).await;
            Err(problem)
        }
    }
}

/// What came of reading a body. What is still to come of one that is refused is read and dropped.
enum Collected {
    Whole(Bytes),
    TooLarge,
    NoRoom(Problem),
}

async fn collect(
    body: &mut Body,
    max: usize,
    declared: Option<usize>,
    share: &mut BodyShare,
) -> Result<Collected, Problem> {
    let reserve = declared.unwrap_or(0).min(BODY_RESERVE_BYTES);
    let mut bytes = BytesMut::with_capacity(reserve);
    while let Some(data) = next(body).await? {
        if bytes.len() + data.len() > max {
            return Ok(Collected::TooLarge);
        }
        if let Err(problem) = share.grow(data.len()) {
            return Ok(Collected::NoRoom(problem));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Collected::Whole(bytes.freeze()))
}

/// The next piece of a body.
pub(super) async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    match body.frame().await {
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(Problem::invalid(format!("the body broke off: {error}"))),
        None => Ok(None),
    }
}

/// Reads what a client still writes of a body that is refused. A client that asked first (Expect: 100-continue) has not
/// begun to.
pub(super) async fn drain(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(EXPECT) {
        discard(body).await;
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

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::http::budget::BodyBudget;
    use crate::http::limits::BODY_FREE_BYTES;
    use crate::http::users::Role;

    const ROOT: User = User {
        uid: 0,
        role: Role::Root,
    };

    /// A body in pieces of 64 KiB.
    fn body(pieces: usize) -> Body {
        let pieces =
            (0..pieces).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 64 << 10])));
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn all_bodies_have_one_budget_and_a_small_one_always_has_room() {
        let budget = BodyBudget::new(256 << 10);
        let read = async |body: Body, share: &mut BodyShare| {
            read(&HeaderMap::new(), body, 1 << 20, share).await
        };
        let (mut first, mut second, mut small) =
            (budget.share(ROOT), budget.share(ROOT), budget.share(ROOT));
        assert!(read(body(4), &mut first).await.is_ok());
        let refused = read(body(1), &mut second).await.expect_err("no room");
        assert_eq!(refused.code(), Code::Overloaded);
        let few = Body::from(vec![b' '; BODY_FREE_BYTES]);
        assert!(read(few, &mut small).await.is_ok());
        drop(first);
        assert!(read(body(1), &mut budget.share(ROOT)).await.is_ok());
    }

    #[tokio::test]
    async fn what_a_client_only_promises_reserves_nothing() {
        let budget = BodyBudget::new(1 << 20);
        let mut share = budget.share(ROOT);
        let collected = collect(&mut Body::from("{}"), 8 << 20, Some(8 << 20), &mut share).await;
        let Ok(Collected::Whole(bytes)) = collected else {
            panic!("it is whole");
        };
        let bytes = bytes.try_into_mut().expect("it is held here alone");
        assert!(
            bytes.capacity() <= BODY_RESERVE_BYTES,
            "{}",
            bytes.capacity()
        );
    }
}
