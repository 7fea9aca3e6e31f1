//! The envelope of a request: `{"execute": NAME, "arguments": {...}, "id": ANY}`, in any order, other fields ignored.

use std::borrow::Cow;

use crate::json::{Reader, Wrong};

/// An id is sent back as it came; the host's are numbers.
const ID_MAX_BYTES: usize = 256;

/// A request's id, as the JSON that it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Id(Option<String>);

impl Id {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// `None` when it is too long to keep.
    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        if json.len() > ID_MAX_BYTES {
            return None;
        }
        std::str::from_utf8(json)
            .ok()
            .map(|json| Self(Some(json.to_owned())))
    }

    pub(super) fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

pub(super) struct Request<'a> {
    pub(super) execute: Cow<'a, str>,
    /// An object, or empty when there are no arguments.
    pub(super) arguments: &'a [u8],
    pub(super) id: Id,
}

impl<'a> Request<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Wrong> {
        let mut request = Request {
            execute: Cow::Borrowed(""),
            arguments: b"",
            id: Id::none(),
        };
        let mut reader = Reader::new(line);
        reader.fields(&mut |key, value| {
            match key {
                "execute" => request.execute = value.string()?,
                "arguments" => request.arguments = value.raw()?,
                "id" => {
                    let wrong = value.wrong("a short id");
                    request.id = Id::from_json(value.raw()?).ok_or(wrong)?;
                }
                _ => value.skip()?,
            }
            Ok(())
        })?;
        reader.end()?;
        if request.execute.is_empty() {
            Err(reader.wrong("a field \"execute\""))
        } else {
            Ok(request)
        }
    }

    /// Hands out the arguments. Those that are null count as left out.
    pub(super) fn arguments(
        &self,
        take: &mut dyn FnMut(&str, &mut Reader<'a>) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        if self.arguments.is_empty() {
            Ok(())
        } else {
            Reader::new(self.arguments).fields(take)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_any_order_and_unknown_fields() {
        let line =
            br#"{"id": 12,"x":[{}],"arguments":{"a":1,"b":null,"c":"d"},"execute":"do\u0069t"}"#;
        let request = Request::parse(line).expect("a request");
        assert_eq!(
            (request.execute.as_ref(), request.id.text()),
            ("doit", Some("12"))
        );
        let mut seen = Vec::new();
        request
            .arguments(&mut |key, value| {
                value
                    .raw()
                    .map(|raw| seen.push((key.to_owned(), raw.to_vec())))
            })
            .expect("arguments");
        assert_eq!(
            seen,
            [
                ("a".to_owned(), b"1".to_vec()),
                ("c".to_owned(), b"\"d\"".to_vec())
            ]
        );
    }

    #[test]
    fn ids_are_kept_as_they_came() {
        for id in ["-1", "\"a b\"", "[1, 2]", "1.50"] {
            let line = format!("{{\"execute\":\"x\",\"id\":{id}}}");
            assert_eq!(
                Request::parse(line.as_bytes())
                    .expect("a request")
                    .id
                    .text(),
                Some(id)
            );
        }
        assert_eq!(
            Request::parse(b"{\"execute\":\"x\",\"id\":null}")
                .expect("a request")
                .id,
            Id::none()
        );
    }

    #[test]
    fn refuses_what_is_no_request() {
        let long = format!(
            "{{\"execute\":\"x\",\"id\":\"{}\"}}",
            "1".repeat(ID_MAX_BYTES)
        );
        for line in [
            "",
            "{}",
            "[]",
            "1",
            "{\"execute\":1}",
            "{\"execute\":\"\"}",
            "{\"execute\":\"x\"} {}",
            "{\"execute\":\"x\"",
            &long,
        ] {
            assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
