//! The envelope of a request: `{"id": N, "execute": NAME, "arguments": {...}}`, in any order.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{self, Wrong};

/// A request's id: `None` where it has none that can be read.
pub(super) type Id = Option<i64>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request<'a> {
    id: Id,
    #[serde(borrow)]
    pub(super) execute: Cow<'a, str>,
    /// Read when it is known what is asked for.
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// The arguments of a command that takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<'a> Request<'a> {
    /// The id is there, where it could be read, even when the rest makes no sense.
    pub(super) fn parse(text: &'a [u8]) -> (Id, Result<Self, Wrong>) {
        #[derive(Deserialize)]
        struct Envelope {
            id: Id,
        }
        let request: Result<Self, Wrong> = json::object(text);
        let id = match &request {
            Ok(request) => request.id,
            Err(_) => json::object(text).ok().and_then(|Envelope { id }| id),
        };
        (id, request)
    }

    pub(super) fn arguments<T: Deserialize<'a>>(&self) -> Result<T, Wrong> {
        json::object(self.arguments.map_or("{}", RawValue::get).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_any_order_and_passes_nulls_over() {
        #[derive(Debug, PartialEq, Eq, Deserialize)]
        struct Arguments {
            a: u8,
            b: Option<u8>,
            c: String,
        }
        let text = br#"{"arguments":{"a":1,"b":null,"c":"d"},"execute":"do\u0069t","id": 12}"#;
        let (id, request) = Request::parse(text);
        let request = request.expect("a request");
        assert_eq!((request.execute.as_ref(), id), ("doit", Some(12)));
        let expected = Arguments {
            a: 1,
            b: None,
            c: "d".to_owned(),
        };
        assert_eq!(request.arguments(), Ok(expected));
        let (id, request) = Request::parse(br#"{"id":null,"execute":"x","arguments":null}"#);
        let request = request.expect("a request");
        assert!(id.is_none() && request.arguments::<Nothing>().is_ok());
    }

    #[test]
    fn refuses_what_is_no_request() {
        for text in [
            "",
            "{}",
            "[]",
            "[1,\"x\",null]",
            "1",
            "{\"execute\":1}",
            "{\"execute\":null}",
            "{\"execute\":\"x\"} {}",
            "{\"execute\":\"x\"",
            "{\"execute\":\"x\",\"execute\":\"y\"}",
        ] {
            assert!(Request::parse(text.as_bytes()).1.is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_field_is_named_under_the_requests_id() {
        let (id, request) = Request::parse(b"{\"execute\":\"x\",\"jail\":1,\"id\":3}");
        let wrong = request.expect_err("an unknown field").to_string();
        assert_eq!(id, Some(3));
        assert!(wrong.starts_with("unknown field `jail`"), "{wrong}");
    }
}
