//! The variables that a command starts with: this process's own, defaults for what every program relies on, and the
//! caller's on top.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sys;

/// Used where the agent itself was started without them.
const DEFAULTS: [(&str, &str); 2] = [("PATH", sys::GUEST_PATH), ("HOME", "/root")];

/// `NAME=VALUE` texts, each name once.
#[derive(Clone, Default)]
pub(crate) struct Environment(Vec<CString>);

impl Environment {
    pub(crate) fn own() -> Self {
        let mut environment = Self::default();
        for (key, value) in std::env::vars_os() {
            // The kernel cannot have given us a NUL byte.
            let _ = environment.set(key.into_vec(), &value.into_vec());
        }
        for (key, value) in DEFAULTS {
            if environment.get(key.as_bytes()).is_none() {
                let _ = environment.set(key.into(), value.as_bytes());
            }
        }
        environment
    }

    /// Sets one variable. `None` for an empty name, a name with `=`, or a NUL byte anywhere.
    pub(crate) fn set(&mut self, key: Vec<u8>, value: &[u8]) -> Option<()> {
        if key.is_empty() || key.contains(&b'=') {
            return None;
        }
        let mut pair = key;
        pair.push(b'=');
        let name_bytes = pair.len();
        pair.extend_from_slice(value);
        self.put(CString::new(pair).ok()?, name_bytes);
        Some(())
    }

    /// Sets all that the other one has.
    pub(crate) fn merge(&mut self, other: &Self) {
        for pair in &other.0 {
            let name = pair.to_bytes().iter().take_while(|byte| **byte != b'=');
            let name_bytes = name.count() + 1;
            self.put(pair.clone(), name_bytes);
        }
    }

    /// The first `name_bytes` are the name and its `=`.
    fn put(&mut self, pair: CString, name_bytes: usize) {
        let name = &pair.to_bytes()[..name_bytes];
        match self
            .0
            .iter()
            .position(|set| set.to_bytes().starts_with(name))
        {
            Some(place) => self.0[place] = pair,
            None => self.0.push(pair),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let value = |pair: &'_ CString| {
            pair.to_bytes().starts_with(key) && pair.to_bytes().get(key.len()) == Some(&b'=')
        };
        self.0
            .iter()
            .find(|pair| value(pair))
            .map(|pair| &pair.to_bytes()[key.len() + 1..])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = &CStr> {
        self.0.iter().map(CString::as_c_str)
    }
}

/// An object: each name once, each value a text.
impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Variables;
        impl<'de> Visitor<'de> for Variables {
            type Value = Environment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Environment, A::Error> {
                let mut environment = Environment::default();
                while let Some((name, value)) = fields.next_entry::<String, String>()? {
                    let is_new = environment.get(name.as_bytes()).is_none();
                    let set = environment.set(name.into_bytes(), value.as_bytes());
                    if !is_new || set.is_none() {
                        let needs = "env needs names without '=', each once, and no NUL byte";
                        return Err(A::Error::custom(needs));
                    }
                }
                Ok(environment)
            }
        }
        from.deserialize_map(Variables)
    }
}

/// As it is read.
impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // Requests are text, and so is all that they bind.
        let pairs = self.0.iter().map(|pair| pair.to_string_lossy());
        let split = |pair: Cow<'_, str>| {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            (name.to_owned(), value.to_owned())
        };
        to.collect_map(pairs.map(split))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_replaces_and_refuses() {
        let mut environment = Environment::default();
        assert_eq!(environment.set("A".into(), b"1"), Some(()));
        assert_eq!(environment.set("AB".into(), b"x=y"), Some(()));
        assert_eq!(environment.set("A".into(), b""), Some(()));
        assert_eq!(
            (
                environment.get(b"A"),
                environment.get(b"AB"),
                environment.get(b"B")
            ),
            (Some(&b""[..]), Some(&b"x=y"[..]), None)
        );
        assert_eq!(environment.pairs().collect::<Vec<_>>(), [c"A=", c"AB=x=y"]);
        for (key, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
            assert_eq!(
                environment.set(key.into(), value.as_bytes()),
                None,
                "{key:?}={value:?}"
            );
        }
    }

    #[test]
    fn merging_replaces_and_adds() {
        let mut environment = Environment::default();
        environment.set("A".into(), b"1").expect("right");
        let mut other = Environment::default();
        other.set("B".into(), b"2=2").expect("right");
        other.set("A".into(), b"").expect("right");
        environment.merge(&other);
        assert_eq!(environment.pairs().collect::<Vec<_>>(), [c"A=", c"B=2=2"]);
    }

    #[test]
    fn own_has_what_programs_rely_on() {
        let own = Environment::own();
        assert!(own.get(b"PATH").is_some() && own.get(b"HOME").is_some());
    }
}
