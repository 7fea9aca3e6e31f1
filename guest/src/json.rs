//! JSON by serde, for both directions.
//!
//! What serde takes beyond the protocol is refused here: a list in the place of an object. What its errors tell beyond
//! the protocol is cut: the value that is wrong, which may be a secret.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use data_encoding::BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// What is wrong with a text, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong(String);

impl Wrong {
    /// The only field of an object that has one of several names has another one.
    pub(crate) fn is_unknown_variant(&self) -> bool {
        self.0.starts_with("unknown variant ")
    }
}

impl From<serde_json::Error> for Wrong {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        // `invalid type: VALUE, expected WHAT at line 1 column 7`
        let kind = text.split_once(": ").map(|(kind, _)| kind);
        match (kind, text.rsplit_once(", expected ")) {
            (Some("invalid type" | "invalid value"), Some((_, expected))) => {
                Self(format!("expected {expected}"))
            }
            _ => Self(text),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object, and no list of its fields' values.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        from.deserialize_map(Fields(PhantomData))
    }
}

/// Reads one object, behind which nothing may follow.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Wrong> {
    value(text).map(|Object(value)| value)
}

/// Reads one value, behind which nothing may follow.
pub(crate) fn value<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Wrong> {
    Ok(serde_json::from_slice(text)?)
}

/// A field that has more to it than its type.
pub(crate) fn checked<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
    is_right: impl FnOnce(&T) -> bool,
    needs: &str,
) -> Result<T, D::Error> {
    let value = T::deserialize(from)?;
    match is_right(&value) {
        true => Ok(value),
        false => Err(D::Error::custom(needs)),
    }
}

/// A field of bytes, as base64.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(from)?;
    let Some(text) = text else {
        return Ok(None);
    };
    let decoded = BASE64.decode(text.as_bytes()).map(Some);
    decoded.map_err(|_| D::Error::custom("expected base64"))
}

/// A value as text.
pub(crate) fn text(value: &impl Serialize) -> String {
    // Memory takes all, and all that is written has fields with names.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Flat {
        number: Option<u16>,
        #[serde(default, deserialize_with = "bytes")]
        bytes: Option<Vec<u8>>,
    }

    fn refused(text: &str) -> String {
        let wrong = object::<Flat>(text.as_bytes()).expect_err(text);
        wrong.to_string()
    }

    #[test]
    fn null_counts_as_absent() {
        let none = Flat {
            number: None,
            bytes: None,
        };
        for text in ["{}", r#" {"number":null,"bytes":null} "#] {
            assert_eq!(object::<Flat>(text.as_bytes()).as_ref(), Ok(&none));
        }
        let some = object(br#"{"bytes":"Zm9v","number":65535}"#);
        let expected = Flat {
            number: Some(u16::MAX),
            bytes: Some(b"foo".to_vec()),
        };
        assert_eq!(some, Ok(expected));
    }

    #[test]
    fn what_is_not_wholly_understood_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            "[1,null]",
            "null",
            "1",
            "\"\"",
            "{} {}",
            "{}]",
            "{number:1}",
            r#"{"number":1.0}"#,
            r#"{"number":65536}"#,
            r#"{"number":-1}"#,
            r#"{"number":01}"#,
            r#"{"number":1,"number":1}"#,
            r#"{"number":1,}"#,
            r#"{"bytes":"Zg"}"#,
            r#"{"bytes":"\ud800"}"#,
            "{\"bytes\":\"\n\"}",
        ] {
            refused(text);
        }
        assert!(object::<Flat>(b"{\"bytes\":\"\xc3\"}").is_err());
        refused(&"[".repeat(1_000_000));
        refused(&r#"{"number":"#.repeat(1_000_000));
    }

    #[test]
    fn base64_is_as_the_standard_has_it() {
        for text in [
            "Z", "Zg", "Zg=", "Zg===", "====", "Z===", "Zh==", "Zm9-", "Z=9v", "=AAA", "Zm9v ",
            "é1=",
        ] {
            refused(&format!("{{\"bytes\":\"{text}\"}}"));
        }
        let flat: Flat = object(br#"{"bytes":"\u002b/9A"}"#).expect("right");
        assert_eq!(flat.bytes, Some(vec![0xfb, 0xff, 0x40]));
    }

    #[test]
    fn errors_have_names_and_places_but_no_values() {
        for (text, expected) in [
            (
                r#"{"jail":1}"#,
                "unknown field `jail`, expected `number` or `bytes` at line 1 column 7",
            ),
            (
                r#"{"number":1,"number":2}"#,
                "duplicate field `number` at line 1 column 20",
            ),
            (
                r#"{"number":"SECRET, expected u8"}"#,
                "expected u16 at line 1 column 31",
            ),
            (r#"{"number":777777}"#, "expected u16 at line 1 column 16"),
            (
                r#"{"bytes":777777}"#,
                "expected a string at line 1 column 15",
            ),
            (
                r#"{"bytes":"SECRET"}"#,
                "expected base64 at line 1 column 18",
            ),
            ("[777777]", "expected an object at line 1 column 0"),
        ] {
            let told = refused(text);
            assert_eq!(told, expected, "{text}");
        }
    }
}
