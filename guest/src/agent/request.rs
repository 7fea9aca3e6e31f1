//! The envelope of a request: `{"id": N, "execute": NAME, "arguments": {...}}`, in any order.

use std::borrow::Cow;

use vmint_guest_protocol::names::envelope;

use crate::json::{Reader, Wrong};

/// A request's id: `None` where it has none that can be read.
pub(super) type Id = Option<i64>;

#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) execute: Cow<'a, str>,
    /// An object, or empty when there are no arguments.
    pub(super) arguments: &'a [u8],
}

impl<'a> Request<'a> {
    /// The id is there, where it could be read, even when the rest makes no sense.
    pub(super) fn parse(text: &'a [u8]) -> (Id, Result<Self, Wrong>) {
        let mut id = None;
        let mut request = Request {
            execute: Cow::Borrowed(""),
            arguments: b"",
        };
        let mut unknown = Ok(());
        let mut reader = Reader::new(text);
        let read = reader.fields(&mut |key, value| {
            match key {
                envelope::ID => id = Some(value.integer()?),
                envelope::EXECUTE => request.execute = value.string()?,
                envelope::ARGUMENTS => request.arguments = value.raw()?,
                _ => {
                    unknown = unknown.and(Err(value.unknown(key)));
                    value.skip()?;
                }
            }
            Ok(())
        });
        let read = read.and_then(|()| reader.end()).and(unknown);
        let named = match request.execute.is_empty() {
            true => Err(reader.wrong("a field \"execute\"")),
            false => Ok(()),
        };
        (id, read.and(named).map(|()| request))
    }

    /// Hands out the arguments. Those that are null count as left out.
    pub(super) fn arguments(
        &self,
        take: &mut dyn FnMut(&str, &mut Reader<'a>) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        if self.arguments.is_empty() {
            Ok(())
        } else {
            let mut reader = Reader::new(self.arguments);
            reader.fields(take)
        }
    }

    /// It takes none.
    pub(super) fn no_arguments(&self) -> Result<(), Wrong> {
        self.arguments(&mut |key, value| Err(value.unknown(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_any_order_and_passes_nulls_over() {
        let text = br#"{"arguments":{"a":1,"b":null,"c":"d"},"execute":"do\u0069t","id": 12}"#;
        let (id, request) = Request::parse(text);
        let request = request.expect("a request");
        assert_eq!((request.execute.as_ref(), id), ("doit", Some(12)));
        let mut seen = Vec::new();
        let taken = request.arguments(&mut |key, value| {
            let raw = value.raw()?;
            seen.push((key.to_owned(), raw.to_vec()));
            Ok(())
        });
        assert_eq!(taken, Ok(()));
        let expected = [
            ("a".to_owned(), b"1".to_vec()),
            ("c".to_owned(), b"\"d\"".to_vec()),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn refuses_what_is_no_request() {
        for text in [
            "",
            "{}",
            "[]",
            "1",
            "{\"execute\":1}",
            "{\"execute\":\"\"}",
            "{\"execute\":\"x\"} {}",
            "{\"execute\":\"x\"",
        ] {
            assert!(Request::parse(text.as_bytes()).1.is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_field_is_named_under_the_requests_id() {
        let (id, request) = Request::parse(b"{\"execute\":\"x\",\"jail\":1,\"id\":3}");
        let wrong = request.expect_err("an unknown field").to_string();
        assert_eq!(id, Some(3));
        assert!(wrong.starts_with("\"jail\" is unknown"), "{wrong}");
    }
}
