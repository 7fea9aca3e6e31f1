//! The envelope of a request: `{"id": N, "execute": NAME, "arguments": {...}}`, in any order.
//!
//! The arguments are read in the same pass, by the type of their command, where its name stands before them: that is how
//! the host sends it. In a fresh clone under emulation, code that only looks for their end would cost as much.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use vmint_guest_protocol::names::commands;

use super::bind::Binding;
use super::order::Command;
use super::waits::{Attached, Online};
use crate::identity::Identity;
use crate::json::{self, Object, Wrong};

/// As much of an unknown command's name as is repeated.
const NAME_MAX_CHARS: usize = 64;
const SIGNAL_MAX: i32 = 64;

/// A request's id: `None` where it has none that can be read.
pub(super) type Id = Option<i64>;

/// The id is there, where it could be read, even when the rest makes no sense.
pub(super) fn parse(text: &[u8]) -> (Id, Result<Asked, Wrong>) {
    #[derive(Deserialize)]
    struct Envelope {
        id: Id,
    }
    match json::value(text) {
        Ok(Request { id, asked }) => (id, Ok(asked)),
        Err(wrong) => {
            let envelope = json::object(text).ok();
            (envelope.and_then(|Envelope { id }| id), Err(wrong))
        }
    }
}

/// A command with its arguments.
pub(super) enum Asked {
    Ping,
    Info,
    Time,
    SetTime(Time),
    Identity(Identity),
    Prepare,
    Bind(Binding),
    Online(Online),
    Attached(Attached),
    Start(Command),
    Processes,
    Process(Which),
    Signal(Signal),
    End(Which),
    Unknown(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Time {
    pub(super) clock_realtime_ns: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    pub(super) process: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signal {
    pub(super) process: String,
    #[serde(deserialize_with = "number")]
    pub(super) signal: i32,
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let is_right = |number: &i32| (1..=SIGNAL_MAX).contains(number);
    json::checked(from, is_right, "expected a number from 1 to 64")
}

/// Reads the arguments of a command.
struct Named<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = Asked;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Asked, D::Error> {
        let none = |Nothing {}, asked| asked;
        Ok(match self.0 {
            commands::PING => none(arguments(from)?, Asked::Ping),
            commands::INFO => none(arguments(from)?, Asked::Info),
            commands::TIME => none(arguments(from)?, Asked::Time),
            commands::SET_TIME => Asked::SetTime(arguments(from)?),
            commands::IDENTITY => Asked::Identity(arguments(from)?),
            commands::PREPARE => none(arguments(from)?, Asked::Prepare),
            commands::BIND => Asked::Bind(arguments(from)?),
            commands::ONLINE => Asked::Online(arguments(from)?),
            commands::ATTACHED => Asked::Attached(arguments(from)?),
            commands::START => Asked::Start(arguments(from)?),
            commands::PROCESSES => none(arguments(from)?, Asked::Processes),
            commands::PROCESS => Asked::Process(arguments(from)?),
            commands::SIGNAL => Asked::Signal(arguments(from)?),
            commands::END => Asked::End(arguments(from)?),
            other => {
                <&RawValue>::deserialize(from)?;
                Asked::Unknown(other.chars().take(NAME_MAX_CHARS).collect())
            }
        })
    }
}

/// Those that are null are as none.
fn arguments<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    match Option::deserialize(from)? {
        Some(Object(arguments)) => Ok(arguments),
        None => json::object(b"{}").map_err(D::Error::custom),
    }
}

struct Request {
    id: Id,
    asked: Asked,
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Fields)
    }
}

struct Fields;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Id,
    Execute,
    Arguments,
}

impl<'de> Visitor<'de> for Fields {
    type Value = Request;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let (mut id, mut execute, mut asked) = (None, None::<String>, None);
        // Those that stood before the name.
        let mut early: Option<&RawValue> = None;
        while let Some(field) = fields.next_key()? {
            match (field, &execute) {
                (Field::Id, _) if id.is_none() => id = Some(fields.next_value::<Id>()?),
                (Field::Execute, None) => execute = Some(fields.next_value()?),
                (Field::Arguments, None) if early.is_none() => early = Some(fields.next_value()?),
                (Field::Arguments, Some(execute)) if early.is_none() && asked.is_none() => {
                    asked = Some(fields.next_value_seed(Named(execute))?);
                }
                _ => return Err(A::Error::custom("a field is there twice")),
            }
        }
        let execute = execute.ok_or_else(|| A::Error::missing_field("execute"))?;
        let asked = asked.map_or_else(
            || {
                let text = early.map_or("null", RawValue::get).as_bytes();
                let mut from = serde_json::Deserializer::from_slice(text);
                let asked = Named(&execute).deserialize(&mut from);
                asked.map_err(A::Error::custom)
            },
            Ok,
        )?;
        let id = id.flatten();
        Ok(Request { id, asked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_any_order_and_passes_nulls_over() {
        for text in [
            r#"{"arguments":{"clock_realtime_ns":5},"execute":"set\u005ftime","id": 12}"#,
            r#" {"id":12,"execute":"set_time","arguments":{"clock_realtime_ns":5}} "#,
        ] {
            let (id, asked) = parse(text.as_bytes());
            assert!(matches!(asked, Ok(Asked::SetTime(time)) if time.clock_realtime_ns == 5));
            assert_eq!(id, Some(12));
        }
        for text in [
            r#"{"id":null,"execute":"ping","arguments":null}"#,
            r#"{"arguments":null,"execute":"ping"}"#,
            r#"{"execute":"ping"}"#,
        ] {
            let (id, asked) = parse(text.as_bytes());
            assert!(id.is_none() && matches!(asked, Ok(Asked::Ping)), "{text}");
        }
        let (_, asked) = parse(br#"{"execute":"bind","arguments":{"env":null,"hostname":null}}"#);
        assert!(matches!(asked, Ok(Asked::Bind(_))));
    }

    #[test]
    fn refuses_what_is_no_request() {
        for text in [
            "",
            "{}",
            "[]",
            "[1,\"ping\",null]",
            "1",
            "{\"execute\":1}",
            "{\"execute\":null}",
            "{\"execute\":\"ping\"} {}",
            "{\"execute\":\"ping\"",
            "{\"execute\":\"ping\",\"execute\":\"ping\"}",
            "{\"id\":null,\"id\":1,\"execute\":\"ping\"}",
            "{\"arguments\":{},\"execute\":\"ping\",\"arguments\":{}}",
            "{\"execute\":\"ping\",\"arguments\":{},\"arguments\":{}}",
            "{\"execute\":\"ping\",\"arguments\":[]}",
            "{\"execute\":\"ping\",\"arguments\":{\"x\":null}}",
            "{\"arguments\":{\"x\":1},\"execute\":\"ping\"}",
            "{\"execute\":\"process\"}",
        ] {
            assert!(parse(text.as_bytes()).1.is_err(), "{text}");
        }
    }

    #[test]
    fn every_command_is_known() {
        for name in commands::ALL {
            let text = format!("{{\"execute\":\"{name}\"}}");
            let asked = parse(text.as_bytes()).1;
            assert!(!matches!(asked, Ok(Asked::Unknown(_))), "{name}");
        }
        let asked = parse(br#"{"execute":"","arguments":[{}]}"#).1;
        assert!(matches!(asked, Ok(Asked::Unknown(_))));
    }

    #[test]
    fn what_is_wrong_is_named_under_the_requests_id_without_its_value() {
        for (text, expected) in [
            (
                r#"{"execute":"ping","jail":1,"id":3}"#,
                "unknown field `jail`, expected one of ",
            ),
            (
                r#"{"execute":"end","arguments":{"process":777},"id":3}"#,
                "expected a string at line 1 ",
            ),
            (
                r#"{"arguments":{"process":777},"execute":"end","id":3}"#,
                "expected a string at line 1 ",
            ),
        ] {
            let (id, asked) = parse(text.as_bytes());
            let wrong = asked.err().map(|wrong| wrong.to_string());
            let wrong = wrong.expect("it is wrong");
            assert!(id == Some(3) && wrong.starts_with(expected), "{wrong}");
        }
    }
}
