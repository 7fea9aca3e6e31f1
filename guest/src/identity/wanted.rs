//! The identity that the host asks for, checked. Every part of it may be left out.

use std::fmt;
use std::time::Duration;

use crate::sys;

/// The kernel's limit for a hostname.
const HOSTNAME_MAX_BYTES: usize = 64;
const MACHINE_ID_DIGITS: usize = 32;
/// How long the kernel's reseed is waited for where the host does not say: it takes a few milliseconds.
const DEFAULT_RESEED_WAIT: Duration = Duration::from_millis(1000);

/// The identity to take on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) hostname: Option<String>,
    pub(crate) machine_id: Option<String>,
    pub(crate) entropy: Vec<u8>,
    pub(crate) clock_step_ns: i64,
    pub(crate) expect_reseed: bool,
    pub(crate) reseed_wait: Duration,
}

impl Default for Identity {
    /// Nothing is changed.
    fn default() -> Self {
        Self {
            hostname: None,
            machine_id: None,
            entropy: Vec::new(),
            clock_step_ns: 0,
            expect_reseed: false,
            reseed_wait: DEFAULT_RESEED_WAIT,
        }
    }
}

impl Identity {
    pub(crate) fn set_hostname(&mut self, value: &str) -> Result<(), Wrong> {
        let needs = "1 to 64 letters, digits, dots and hyphens";
        self.hostname = Some(hostname(value).ok_or(Wrong {
            key: "hostname",
            needs,
        })?);
        Ok(())
    }

    pub(crate) fn set_machine_id(&mut self, value: &str) -> Result<(), Wrong> {
        let needs = "32 lower-case hexadecimal digits";
        self.machine_id = Some(machine_id(value).ok_or(Wrong {
            key: "machine_id",
            needs,
        })?);
        Ok(())
    }

    /// `None`: the text that it came as could not be decoded.
    pub(crate) fn set_entropy(&mut self, decoded: Option<Vec<u8>>) -> Result<(), Wrong> {
        let needs = "1 to 512 bytes, encoded";
        let right = decoded.filter(|bytes| (1..=sys::ENTROPY_MAX_BYTES).contains(&bytes.len()));
        self.entropy = right.ok_or(Wrong {
            key: "entropy",
            needs,
        })?;
        Ok(())
    }
}

/// A value that makes no sense. It is not repeated: it may be entropy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) key: &'static str,
    pub(crate) needs: &'static str,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs {}", self.key, self.needs)
    }
}

fn hostname(value: &str) -> Option<String> {
    let right = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let edges = value.starts_with(['-', '.']) || value.ends_with(['-', '.']);
    (!value.is_empty() && value.len() <= HOSTNAME_MAX_BYTES && !edges && value.bytes().all(right))
        .then(|| value.to_owned())
}

fn machine_id(value: &str) -> Option<String> {
    let right = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (value.len() == MACHINE_ID_DIGITS && value.bytes().all(right)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_right() {
        let mut wanted = Identity::default();
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(wanted.set_hostname("job-17.local"), Ok(()));
        assert_eq!(wanted.set_machine_id(id), Ok(()));
        assert_eq!(wanted.set_entropy(Some(vec![0, 255])), Ok(()));
        let expected = Identity {
            hostname: Some("job-17.local".to_owned()),
            machine_id: Some(id.to_owned()),
            entropy: vec![0, 255],
            ..Identity::default()
        };
        assert_eq!(wanted, expected);
    }

    #[test]
    fn refuses_wrong_values_without_repeating_them() {
        let mut wanted = Identity::default();
        let long = "a".repeat(65);
        for name in ["", "a b", "a/b", "-a", "a.", "a\tb", long.as_str()] {
            let error = wanted.set_hostname(name).expect_err("a wrong name");
            let needs = "hostname needs 1 to 64 letters, digits, dots and hyphens";
            assert_eq!(error.to_string(), needs, "{name}");
        }
        for id in [
            "",
            "0123",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef0123456789abcdeg",
        ] {
            let error = wanted.set_machine_id(id).expect_err("a wrong id");
            assert_eq!(error.key, "machine_id", "{id}");
        }
        for bytes in [None, Some(Vec::new()), Some(vec![0; 513])] {
            let error = wanted.set_entropy(bytes).expect_err("wrong entropy");
            assert_eq!(error.to_string(), "entropy needs 1 to 512 bytes, encoded");
        }
        assert_eq!(wanted, Identity::default());
    }
}
