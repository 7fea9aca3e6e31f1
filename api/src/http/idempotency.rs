//! The `Idempotency-Key` header: a name for a request, so that a client that lost the answer can ask again.
//!
//! Only digests leave this file. A request may have secrets in it, and what is kept of it is written to the sandbox's
//! record: so its digest is keyed with the client's key, which is kept nowhere, and cannot be guessed from what is.
//!
//! Two requests are the same when they ask for the same: the digest is that of the request after its checks, and not of
//! its text.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use vmint_cache::{
    Binding, BoundFile, CheckoutRequest, DeviceOrder, DiskSpec, OnEmpty, RequestKey,
};
use vmint_factory::NicSpec;

use super::limits::IDEMPOTENCY_KEY_MAX_BYTES;
use super::problem::Problem;

/// The header.
const HEADER: &str = "idempotency-key";
/// What the digests are made for: they are not those of the same words elsewhere.
const KEY_CONTEXT: &str = "vmint 2026-01 name of an idempotent checkout";
const REQUEST_CONTEXT: &str = "vmint 2026-11 request of an idempotent checkout";

/// A client's key, with its user.
pub(super) struct IdempotencyKey {
    name: String,
    request_key: [u8; 32],
}

/// The key of a request; `None` when it has no such header. `uid` is the client's user: a user
/// who happens on another's key gets a sandbox of their own.
pub(super) fn key(headers: &HeaderMap, uid: u32) -> Result<Option<IdempotencyKey>, Problem> {
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
    let whose = uid.to_string();
    // A key has no zero byte in it.
    let name = [whose.as_bytes(), b"\0", key].concat();
    Ok(Some(IdempotencyKey {
        name: hex(blake3::derive_key(KEY_CONTEXT, &name)),
        request_key: blake3::derive_key(REQUEST_CONTEXT, key),
    }))
}

/// Refuses a key where none is remembered: a command that runs twice must not look like one that ran once.
pub(super) fn refuse(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(HEADER) {
        return Err(Problem::invalid(
            "no Idempotency-Key is taken here; hint: start a process and look at it by its id",
        ));
    }
    Ok(())
}

impl IdempotencyKey {
    /// The key of one request.
    pub(super) fn of(self, request: &CheckoutRequest) -> RequestKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.request_key);
        serde_json::to_writer(&mut hasher, &Canonical::of(request))
            .expect("a hasher takes everything, and every path came as JSON");
        RequestKey {
            key: self.name,
            body: hex(*hasher.finalize().as_bytes()),
        }
    }
}

/// What a request asks for, in one form. Who asks is in the key.
#[derive(Serialize)]
struct Canonical<'a> {
    template: &'a str,
    on_empty: &'static str,
    wait: Duration,
    ttl: &'a Option<Option<Duration>>,
    has_ttl: bool,
    vcpus: Option<u32>,
    memory_mib: Option<u64>,
    hostname: Option<&'a str>,
    env: &'a BTreeMap<String, String>,
    files: Vec<CanonicalFile<'a>>,
    metadata: &'a BTreeMap<String, String>,
    nics: &'a [NicSpec],
    disks: &'a [DiskSpec],
}

#[derive(Serialize)]
struct CanonicalFile<'a> {
    path: &'a str,
    content: String,
    mode: Option<u32>,
}

impl<'a> Canonical<'a> {
    fn of(request: &'a CheckoutRequest) -> Self {
        // Every field is named: a new one cannot be left out of the digest unnoticed.
        let CheckoutRequest {
            template,
            on_empty,
            wait,
            ttl,
            vcpus,
            memory_mib,
            binding:
                Binding {
                    hostname,
                    env,
                    files,
                },
            owner_uid: _,
            owner: _,
            idempotency: _,
            metadata,
            devices,
        } = request;
        let specs = devices.as_ref().map(|DeviceOrder { specs, .. }| specs);
        Self {
            template,
            on_empty: match on_empty {
                OnEmpty::Wait => "wait",
                OnEmpty::Clone => "clone",
                OnEmpty::Fail => "fail",
            },
            wait: *wait,
            ttl,
            has_ttl: ttl.is_some(),
            vcpus: *vcpus,
            memory_mib: *memory_mib,
            hostname: hostname.as_deref(),
            env,
            files: files.iter().map(CanonicalFile::of).collect(),
            metadata,
            nics: specs.map_or(&[], |specs| &specs.nics),
            disks: specs.map_or(&[], |specs| &specs.disks),
        }
    }
}

impl<'a> CanonicalFile<'a> {
    fn of(file: &'a BoundFile) -> Self {
        let BoundFile {
            path,
            content,
            mode,
        } = file;
        Self {
            path,
            content: blake3::hash(content).to_hex().to_string(),
            mode: *mode,
        }
    }
}

fn checked(value: &HeaderValue) -> Option<&[u8]> {
    let key = value.as_bytes();
    let is_key = (1..=IDEMPOTENCY_KEY_MAX_BYTES).contains(&key.len())
        && key.iter().all(|byte| (b' '..=b'~').contains(byte));
    is_key.then_some(key)
}

fn hex(bytes: [u8; 32]) -> String {
    blake3::Hash::from(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key_text: &str, request: &CheckoutRequest) -> RequestKey {
        let headers = [(
            HEADER.parse().expect("a name"),
            key_text.parse().expect("a value"),
        )];
        let key = key(&headers.into_iter().collect(), 0);
        key.expect("valid").expect("a key").of(request)
    }

    /// Changes one thing that a request asks for.
    type Change = fn(&mut CheckoutRequest);

    #[test]
    fn requests_are_the_same_when_they_ask_for_the_same() {
        let plain = CheckoutRequest::default();
        let one = named("k", &plain);
        assert_eq!(one, named("k", &plain.clone()));
        // A digest tells nothing without the key.
        assert_ne!(one.body, named("l", &plain).body);
        let file = |content: &str| BoundFile {
            path: "/a".to_owned(),
            content: content.as_bytes().to_vec(),
            mode: None,
        };
        let changes: [Change; 9] = [
            |it| it.template.push('x'),
            |it| it.on_empty = OnEmpty::Fail,
            |it| it.wait = Duration::from_secs(1),
            |it| it.ttl = Some(None),
            |it| it.ttl = Some(Some(Duration::from_secs(1))),
            |it| it.vcpus = Some(2),
            |it| it.memory_mib = Some(2),
            |it| it.binding.hostname = Some("x".to_owned()),
            |it| it.metadata = [("a".to_owned(), "b".to_owned())].into(),
        ];
        let mut seen = vec![one.body];
        for change in changes {
            let mut changed = plain.clone();
            change(&mut changed);
            seen.push(named("k", &changed).body);
        }
        for files in [vec![file("1")], vec![file("2")], vec![file("1"), file("2")]] {
            let mut changed = plain.clone();
            changed.binding.files = files;
            seen.push(named("k", &changed).body);
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "each of them is another request");
    }

    #[test]
    fn a_key_is_short_and_printable() {
        let of_value = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            key(
                &[(HEADER.parse().expect("a name"), value)]
                    .into_iter()
                    .collect(),
                0,
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
        assert!(key(&twice, 0).is_err());
        assert!(matches!(key(&HeaderMap::new(), 0), Ok(None)));
    }

    #[test]
    fn another_users_key_is_another_key() {
        let headers: HeaderMap = [(
            HEADER.parse().expect("a name"),
            "k".parse().expect("a value"),
        )]
        .into_iter()
        .collect();
        let name = |uid| key(&headers, uid).map(|named| named.map(|it| it.name)).ok();
        assert_ne!(name(0), name(1000));
        assert_eq!(name(1000), name(1000));
    }
}
