//! Names of virtual machines and of generations: short enough for a socket's path, never used twice.

use std::fmt;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Letters of a random name: no vowels, so that no name is a word, and nothing that looks like something else.
const ALPHABET: &[u8] = b"bcdfghjkmnpqrstvwxz23456789";
/// Random letters of a virtual machine's id: 27^12 names, 57 bits.
const VM_ID_LETTERS: usize = 12;
/// Random letters that tell apart generations of two templates that begin in the same second.
const GENERATION_LETTERS: usize = 4;
/// How the second is written at which a generation's build began.
const SECOND: &str = "%Y%m%d-%H%M%S";
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
/// Sorting the names of a template's generations sorts them by age, whatever is done to the host's clock.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GenerationId(String);

impl GenerationId {
    /// A new id for a build that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self::at(&Timestamp::now().strftime(SECOND).to_string())
    }

    /// The same, behind another one: where the host's clock says that this one is the older, it was set back, and the
    /// name is that of the second after the other.
    pub(crate) fn new_after(other: Option<&Self>) -> Self {
        let new = Self::new();
        let Some(behind) = other.and_then(Self::second) else {
            return new;
        };
        match new.second() {
            Some(now) if now > behind => new,
            _ => {
                let next = behind.checked_add(SignedDuration::from_secs(1));
                next.map_or(new, |next| Self::at(&next.strftime(SECOND).to_string()))
            }
        }
    }

    fn at(second: &str) -> Self {
        Self(format!("{second}-{}", random_letters(GENERATION_LETTERS)))
    }

    /// The second in the name; none in one that was given by hand.
    fn second(&self) -> Option<DateTime> {
        let (second, _tail) = self.0.rsplit_once('-')?;
        DateTime::strptime(SECOND, second).ok()
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

    #[test]
    fn a_generation_sorts_behind_the_one_before_it_whatever_the_clock_says() {
        let of = |text: &str| GenerationId::parse(text);
        let old = of("20010101-000000-bcdf");
        let now = GenerationId::new();
        assert!(GenerationId::new_after(old.as_ref()).as_str()[..15] >= now.as_str()[..15]);
        let ahead = of("21991231-235959-zzzz");
        let behind = GenerationId::new_after(ahead.as_ref());
        assert!(behind.as_str().starts_with("22000101-000000-"), "{behind}");
        let same = GenerationId::new_after(Some(&now));
        assert!(same > now, "{now} and {same} begin in the same second");
        for odd in ["by-hand", "99999999-999999-bcdf", "x"] {
            let new = GenerationId::new_after(of(odd).as_ref());
            assert!(new.as_str()[..15] >= now.as_str()[..15], "{odd}: {new}");
        }
    }
}
