//! The `Idempotency-Key` header: a name for a request, so that a client that lost the answer can ask again.
//!
//! Only digests leave this file. A body may have secrets in it, and what is kept of it is written to the sandbox's record:
//! so its digest is keyed with the client's key, which is kept nowhere, and cannot be guessed from what is.

use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use vmint_cache::RequestKey;

use super::limits::IDEMPOTENCY_KEY_MAX_BYTES;
use super::problem::Problem;

/// The header.
const HEADER: &str = "idempotency-key";
/// What the digests are made for: they are not those of the same words elsewhere.
const KEY_CONTEXT: &str = "vmint 2026-01 name of an idempotent checkout";
const BODY_CONTEXT: &str = "vmint 2026-01 body of an idempotent checkout";

/// What a request is named by; `None` when it has no such header. `uid` is whose it is, where the kernel has said so: a user
/// who happens on another's key gets a sandbox of their own.
pub(super) fn of(
    headers: &HeaderMap,
    body: &[u8],
    uid: Option<u32>,
) -> Result<Option<RequestKey>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = checked(value).filter(|_| values.next().is_none());
    let key = key.ok_or_else(|| {
        Problem::invalid(format!(
            "there may be one Idempotency-Key, of 1 to {IDEMPOTENCY_KEY_MAX_BYTES} printable ASCII characters"
        ))
    })?;
    let body_key = blake3::derive_key(BODY_CONTEXT, key);
    let whose = uid.map_or_else(|| "tcp".to_owned(), |uid| uid.to_string());
    // A key has no zero byte in it.
    let name = [whose.as_bytes(), b"\0", key].concat();
    Ok(Some(RequestKey {
        key: hex(blake3::derive_key(KEY_CONTEXT, &name)),
        body: hex(*blake3::keyed_hash(&body_key, &canonical(body)).as_bytes()),
    }))
}

fn checked(value: &HeaderValue) -> Option<&[u8]> {
    let key = value.as_bytes();
    let is_key = (1..=IDEMPOTENCY_KEY_MAX_BYTES).contains(&key.len())
        && key.iter().all(|byte| (b' '..=b'~').contains(byte));
    is_key.then_some(key)
}

/// A body is the same whatever its spaces and the order of its fields; none at all is an empty object.
fn canonical(body: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => sorted(value).to_string().into_bytes(),
        Err(_) if body.is_empty() => b"{}".to_vec(),
        Err(_) => body.to_vec(),
    }
}

/// The fields in the order of their names, whatever map another crate makes serde_json use.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name, sorted(value)));
            Value::Object(fields.collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        value => value,
    }
}

fn hex(bytes: [u8; 32]) -> String {
    blake3::Hash::from(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key: &str, body: &str) -> RequestKey {
        let headers = [(
            HEADER.parse().expect("a name"),
            key.parse().expect("a value"),
        )];
        of(&headers.into_iter().collect(), body.as_bytes(), None)
            .expect("valid")
            .expect("a key")
    }

    #[test]
    fn a_body_is_the_same_whatever_its_spaces_and_order() {
        let one = named("k", r#"{"a": 1, "b": {"x": 1, "y": 2}}"#);
        assert_eq!(one, named("k", r#"{"b":{"y":2,"x":1},"a":1}"#));
        assert_ne!(
            one.body,
            named("k", r#"{"a": 2, "b": {"x": 1, "y": 2}}"#).body
        );
        assert_eq!(named("k", ""), named("k", " {} "));
        // Nobody learns that two bodies are the same, or guesses one, without the key.
        assert_ne!(
            one.body,
            named("l", r#"{"a": 1, "b": {"x": 1, "y": 2}}"#).body
        );
    }

    #[test]
    fn a_key_is_short_and_printable() {
        let of_value = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            of(
                &[(HEADER.parse().expect("a name"), value)]
                    .into_iter()
                    .collect(),
                b"",
                None,
            )
        };
        assert!(matches!(of_value("~ x".as_bytes()), Ok(Some(_))));
        assert!(of_value(&[b'x'; 255]).is_ok());
        for bad in [b"".as_slice(), &[b'x'; 256], "ä".as_bytes(), b"\t"] {
            assert!(of_value(bad).is_err(), "{bad:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(HEADER, HeaderValue::from_static("a"));
        twice.append(HEADER, HeaderValue::from_static("b"));
        assert!(of(&twice, b"", None).is_err());
        assert!(matches!(of(&HeaderMap::new(), b"", None), Ok(None)));
    }

    #[test]
    fn another_users_key_is_another_key() {
        let headers: HeaderMap = [(
            HEADER.parse().expect("a name"),
            "k".parse().expect("a value"),
        )]
        .into_iter()
        .collect();
        let name = |uid| {
            of(&headers, b"", uid)
                .map(|named| named.map(|it| it.key))
                .ok()
        };
        let names = [name(None), name(Some(0)), name(Some(1000))];
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
        assert_eq!(name(Some(1000)), names[2]);
    }
}
