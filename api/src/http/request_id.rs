//! The id that ties an answer to its lines in the logs.

use axum::extract::Request;
use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::limits::REQUEST_ID_MAX_BYTES;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client's id where it is harmless in logs and headers, else a new one.
pub(super) fn of(request: &Request) -> HeaderValue {
    match request.headers().get(X_REQUEST_ID) {
        Some(id) if is_harmless(id.as_bytes()) => id.clone(),
        _ => {
            let mut buffer = Uuid::encode_buffer();
            let id = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
            HeaderValue::from_str(id).expect("a uuid is letters, digits and dashes")
        }
    }
}

fn is_harmless(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= REQUEST_ID_MAX_BYTES
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
}
