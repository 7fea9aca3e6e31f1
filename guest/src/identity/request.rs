//! What the host asks for: `key=value` lines on stdin. Every key may be left out; none may be unknown or come twice.

use std::fmt;
use std::time::Duration;

use crate::{hex, sys};

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
        self.hostname = Some(hostname(value).ok_or(Wrong::Value {
            key: "hostname",
            needs,
        })?);
        Ok(())
    }

    pub(crate) fn set_machine_id(&mut self, value: &str) -> Result<(), Wrong> {
        let needs = "32 lower-case hexadecimal digits";
        self.machine_id = Some(machine_id(value).ok_or(Wrong::Value {
            key: "machine_id",
            needs,
        })?);
        Ok(())
    }

    /// `None`: the text that it came as could not be decoded.
    pub(crate) fn set_entropy(&mut self, decoded: Option<Vec<u8>>) -> Result<(), Wrong> {
        let needs = "1 to 512 bytes, encoded";
        let right = decoded.filter(|bytes| (1..=sys::ENTROPY_MAX_BYTES).contains(&bytes.len()));
        self.entropy = right.ok_or(Wrong::Value {
            key: "entropy",
            needs,
        })?;
        Ok(())
    }
}

/// A request that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    NotALine(String),
    Unknown(String),
    Twice(String),
    Value {
        key: &'static str,
        needs: &'static str,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotALine(line) => write!(f, "not a key=value line: {line:?}"),
            Self::Unknown(key) => write!(f, "unknown key {key:?}"),
            Self::Twice(key) => write!(f, "key {key:?} came twice"),
            // The value itself is not repeated: it may be entropy.
            Self::Value { key, needs } => write!(f, "{key} needs {needs}"),
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Identity, Wrong> {
    let mut request = Identity::default();
    let mut seen: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| Wrong::NotALine(line.to_owned()))?;
        if seen.contains(&key) {
            return Err(Wrong::Twice(key.to_owned()));
        }
        seen.push(key);
        take(&mut request, key, value)?;
    }
    Ok(request)
}

fn take(request: &mut Identity, key: &str, value: &str) -> Result<(), Wrong> {
    let wrong = |key, needs| Wrong::Value { key, needs };
    match key {
        "hostname" => request.set_hostname(value)?,
        "machine_id" => request.set_machine_id(value)?,
        "entropy" => request.set_entropy(hex::decode(value))?,
        "clock_step_ns" => {
            request.clock_step_ns = value
                .parse()
                .map_err(|_| wrong("clock_step_ns", "a whole number"))?
        }
        "expect_reseed" => {
            request.expect_reseed = flag(value).ok_or_else(|| wrong("expect_reseed", "0 or 1"))?
        }
        "reseed_wait_ms" => {
            let wait_ms = value
                .parse()
                .map_err(|_| wrong("reseed_wait_ms", "a whole number"))?;
            request.reseed_wait = Duration::from_millis(wait_ms);
        }
        _ => return Err(Wrong::Unknown(key.to_owned())),
    }
    Ok(())
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

fn flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).expect_err("a wrong request").to_string()
    }

    #[test]
    fn takes_everything() {
        let id = "0123456789abcdef0123456789abcdef";
        let text = format!(
            "hostname=job-17.local\nmachine_id={id}\nentropy=00ff\nclock_step_ns=-5\nexpect_reseed=1\nreseed_wait_ms=250\n"
        );
        let expected = Identity {
            hostname: Some("job-17.local".to_owned()),
            machine_id: Some(id.to_owned()),
            entropy: vec![0, 255],
            clock_step_ns: -5,
            expect_reseed: true,
            reseed_wait: Duration::from_millis(250),
        };
        assert_eq!(parse(&text), Ok(expected));
    }

    #[test]
    fn everything_may_be_left_out() {
        let request = parse("").expect("an empty request");
        assert_eq!(
            (
                request.hostname,
                request.machine_id,
                request.clock_step_ns,
                request.expect_reseed
            ),
            (None, None, 0, false)
        );
        assert_eq!(request.reseed_wait, DEFAULT_RESEED_WAIT);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(error("colour=red"), "unknown key \"colour\"");
        assert_eq!(error("hostname"), "not a key=value line: \"hostname\"");
        assert_eq!(
            error("hostname=a\nhostname=b"),
            "key \"hostname\" came twice"
        );
    }

    #[test]
    fn refuses_wrong_values() {
        let long = "a".repeat(65);
        for name in ["", "a b", "a/b", "-a", "a.", "a\tb", long.as_str()] {
            assert!(
                error(&format!("hostname={name}")).starts_with("hostname needs"),
                "{name}"
            );
        }
        for id in [
            "",
            "0123",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef0123456789abcdeg",
        ] {
            assert!(
                error(&format!("machine_id={id}")).starts_with("machine_id needs"),
                "{id}"
            );
        }
        for bytes in ["", "0", "zz", &"00".repeat(513)] {
            assert_eq!(
                error(&format!("entropy={bytes}")),
                "entropy needs 1 to 512 bytes, encoded"
            );
        }
        assert_eq!(
            error("clock_step_ns=1.5"),
            "clock_step_ns needs a whole number"
        );
        assert_eq!(error("expect_reseed=yes"), "expect_reseed needs 0 or 1");
        assert_eq!(
            error("reseed_wait_ms=-1"),
            "reseed_wait_ms needs a whole number"
        );
    }
}
