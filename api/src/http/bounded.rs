//! Lists and objects of a body that keep no more items than they may, however many were sent.
//!
//! An item is parsed only while there is room for it. What comes after is skipped without being built, and the value
//! remembers that it was over its limit: seven bytes of JSON can cost six hundred of memory, so a limit that is looked at
//! afterwards is too late.
//!
//! What was sent may be secret: no error here quotes a value.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Refuses every scalar without quoting it, which serde's own refusals do.
macro_rules! no_scalars {
    () => {
        no_scalars! { no_numbers }
        fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(refused(&self))
        }
    };
    (no_numbers) => {
        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Err(refused(&self))
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Err(refused(&self))
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            Err(refused(&self))
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Err(refused(&self))
        }
    };
}
pub(super) use no_scalars;

/// Says what was expected, and nothing of what came.
pub(super) fn refused<'de, E: Error, V: Visitor<'de>>(visitor: &V) -> E {
    struct Expected<'a, V>(&'a V);
    impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.expecting(f)
        }
    }
    E::custom(format_args!("expected {}", Expected(visitor)))
}

/// At most `MAX` items; `null` is none of them.
#[derive(Default)]
pub(super) struct Bounded<C, const MAX: usize> {
    items: C,
    is_over: bool,
}

/// A list of at most `MAX` items.
pub(super) type List<T, const MAX: usize> = Bounded<Vec<T>, MAX>;

/// An object of at most `MAX` strings. Of a name that comes twice the last value counts.
pub(super) type Strings<const MAX: usize> = Bounded<BTreeMap<String, String>, MAX>;

impl<C, const MAX: usize> Bounded<C, MAX> {
    /// The items; `None` when more than `MAX` were sent.
    pub(super) fn within(self) -> Option<C> {
        (!self.is_over).then_some(self.items)
    }
}

impl<T, const MAX: usize> From<Vec<T>> for List<T, MAX> {
    fn from(items: Vec<T>) -> Self {
        let is_over = items.len() > MAX;
        Self { items, is_over }
    }
}

impl<const MAX: usize> From<BTreeMap<String, String>> for Strings<MAX> {
    fn from(items: BTreeMap<String, String>) -> Self {
        let is_over = items.len() > MAX;
        Self { items, is_over }
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = List<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    no_scalars! {}

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(List::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = List::default();
        while list.items.len() < MAX {
            match seq.next_element()? {
                Some(item) => list.items.push(item),
                None => return Ok(list),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            list.is_over = true;
        }
        Ok(list)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Strings<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StringsVisitor)
    }
}

struct StringsVisitor<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for StringsVisitor<MAX> {
    type Value = Strings<MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    no_scalars! {}

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Strings::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut strings = Strings::default();
        while strings.items.len() < MAX {
            let Some(name) = map.next_key::<Text>()? else {
                return Ok(strings);
            };
            strings.items.insert(name.0, map.next_value::<Text>()?.0);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            strings.is_over = true;
        }
        Ok(strings)
    }
}

/// A string whose absence or wrong kind is told without it.
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    no_scalars! { no_numbers }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
        Ok(Text(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_what_it_may_and_knows_of_more() {
        let list = |text| serde_json::from_str::<List<u8, 2>>(text).map(List::within);
        assert_eq!(list("null").expect("valid"), Some(vec![]));
        assert_eq!(list("[1, 2]").expect("valid"), Some(vec![1, 2]));
        assert_eq!(list("[1, 2, {\"any\": [\"thing\"]}]").expect("valid"), None);
        assert!(list("[1, 2, ").is_err() && list("[1, \"x\"]").is_err());
    }

    #[test]
    fn an_object_keeps_what_it_may_and_knows_of_more() {
        let object = |text| serde_json::from_str::<Strings<2>>(text).map(Strings::within);
        assert_eq!(object("null").expect("valid"), Some(BTreeMap::new()));
        let two = object(r#"{"a": "1", "b": "2"}"#).expect("valid");
        assert_eq!(two.map(|it| it["b"].clone()).as_deref(), Some("2"));
        assert_eq!(
            object(r#"{"a": "1", "b": "2", "c": 3}"#).expect("valid"),
            None
        );
    }

    #[test]
    fn no_error_quotes_what_was_sent() {
        for bad in [
            r#""secret""#,
            r#"{"A": ["secret"]}"#,
            r#"["secret"]"#,
            "7777777",
            r#"{"A": 7777777}"#,
            r#"{"A": 7777777.5}"#,
            r#"{"A": "secret"#,
        ] {
            let error = serde_json::from_str::<Strings<9>>(bad).err();
            let error = error.expect("no object of strings").to_string();
            assert!(
                !error.contains("secret") && !error.contains("777"),
                "{error}"
            );
        }
    }
}
