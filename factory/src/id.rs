//! Names of virtual machines and of generations: short enough for a socket's path, never used twice.

use std::fmt;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Letters of a random name: no vowels, so that no name is a word, and nothing that looks like something else.
const ALPHABET: &[u8] = b"bcdfghjkmnpqrstvwxz23456789";
/// Random letters of a virtual machine's id: 27^12 names, 57 bits.
const VM_ID_LETTERS: usize = 12;
/// Random letters that tell apart two generations begun in the same second.
const GENERATION_LETTERS: usize = 4;
/// Longest id that is taken from outside; paths are built from ids.
const MAX_ID_BYTES: usize = 64;

fn random_letters(count: usize) -> String {
    let mut rng = rand::rng();
    (0..count)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

/// Whether a text can be a name in a path: lower-case letters, digits and dashes, nothing that climbs.
fn is_plain_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_ID_BYTES
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The name of one virtual machine; also the name of its directory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmId(String);

impl VmId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(random_letters(VM_ID_LETTERS))
    }

    /// Reads an id that came from outside; `None` when it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_plain_name(text).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of one generation of a template: the second its build began (UTC), and a random tail.
/// Sorting the names sorts the generations by age.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GenerationId(String);

impl GenerationId {
    /// A new id for a build that begins now.
    #[must_use]
    pub fn new() -> Self {
        let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        Self(format!("{now}-{}", random_letters(GENERATION_LETTERS)))
    }

    /// Reads an id that came from outside; `None` when it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_plain_name(text).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for GenerationId {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! text_id {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $type {
            type Error = String;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text).ok_or_else(|| format!("{text:?} is no id"))
            }
        }
        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }
    };
}
text_id!(VmId);
text_id!(GenerationId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_climb_out_of_a_directory_are_refused() {
        for bad in ["", "..", "a/b", "-x", "A", "a b", &"a".repeat(65)] {
            assert_eq!(VmId::parse(bad), None, "{bad:?}");
            assert_eq!(GenerationId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn random_ids_are_valid_and_differ() {
        let (a, b) = (VmId::random(), VmId::random());
        assert_ne!(a, b);
        assert_eq!(VmId::parse(a.as_str()), Some(a));
        assert!(GenerationId::parse(GenerationId::new().as_str()).is_some());
    }
}
