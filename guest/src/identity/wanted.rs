//! The identity that the host asks for, checked. Every part of it may be left out. A value that makes no sense is not
//! repeated: it may be entropy.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::{json, sys};

/// The kernel's limit for a hostname.
const HOSTNAME_MAX_BYTES: usize = 64;
const MACHINE_ID_DIGITS: usize = 32;

/// The identity to take on.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    #[serde(default, deserialize_with = "hostname")]
    pub(super) hostname: Option<String>,
    #[serde(default, deserialize_with = "machine_id")]
    pub(super) machine_id: Option<String>,
    #[serde(default, deserialize_with = "entropy")]
    pub(super) entropy: Option<Vec<u8>>,
    pub(super) clock_step_ns: Option<i64>,
    pub(super) expect_reseed: Option<bool>,
    pub(super) reseed_wait_ms: Option<u64>,
}

pub(crate) fn hostname<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let is_right = |name: &Option<String>| name.as_deref().is_none_or(is_hostname);
    let needs = "hostname needs 1 to 64 letters, digits, dots and hyphens";
    json::checked(from, is_right, needs)
}

fn machine_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let is_right = |id: &Option<String>| id.as_deref().is_none_or(is_machine_id);
    json::checked(
        from,
        is_right,
        "machine_id needs 32 lower-case hexadecimal digits",
    )
}

fn entropy<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    match json::bytes(from)? {
        Some(bytes) if !(1..=sys::ENTROPY_MAX_BYTES).contains(&bytes.len()) => {
            Err(D::Error::custom("entropy needs 1 to 512 bytes"))
        }
        bytes => Ok(bytes),
    }
}

fn is_hostname(name: &str) -> bool {
    let right = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let edges = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
    (1..=HOSTNAME_MAX_BYTES).contains(&name.len()) && !edges && name.bytes().all(right)
}

fn is_machine_id(id: &str) -> bool {
    let right = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    id.len() == MACHINE_ID_DIGITS && id.bytes().all(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(field: &str, value: &str) -> Result<Identity, String> {
        let text = format!("{{\"{field}\":\"{value}\"}}");
        json::object(text.as_bytes()).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn takes_what_is_right() {
        let id = "0123456789abcdef0123456789abcdef";
        let text = format!(
            r#"{{"hostname":"job-17.local","machine_id":"{id}","entropy":"AP8=","clock_step_ns":-5,"reseed_wait_ms":null}}"#
        );
        let expected = Identity {
            hostname: Some("job-17.local".to_owned()),
            machine_id: Some(id.to_owned()),
            entropy: Some(vec![0, 255]),
            clock_step_ns: Some(-5),
            ..Identity::default()
        };
        assert_eq!(json::object(text.as_bytes()), Ok(expected));
        assert_eq!(json::object(b"{}"), Ok(Identity::default()));
    }

    #[test]
    fn refuses_wrong_values_without_repeating_them() {
        let long = "a".repeat(65);
        for name in ["", "a b", "a/b", "-a", "a.", "a\\tb", long.as_str()] {
            let error = wanted("hostname", name).expect_err("a wrong name");
            let needs = "hostname needs 1 to 64 letters, digits, dots and hyphens at line 1 ";
            assert!(error.starts_with(needs), "{name}: {error}");
        }
        for id in [
            "",
            "0123",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef0123456789abcdeg",
        ] {
            let error = wanted("machine_id", id).expect_err("a wrong id");
            assert!(error.starts_with("machine_id needs 32 "), "{id}: {error}");
        }
        let long = "A".repeat(513usize.div_ceil(3) * 4);
        for text in ["", "SECRET", "é", long.as_str()] {
            let error = wanted("entropy", text).expect_err("wrong entropy");
            assert!(!error.contains("SECRET") && error.len() < 80, "{error}");
        }
    }
}
