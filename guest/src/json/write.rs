//! One flat JSON object on one line: all that is ever answered.

use std::fmt::{Display, Write as _};

/// A JSON object under construction; keys are written in the order of the calls.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self(String::from("{"))
    }

    pub(crate) fn string(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        self.quoted(value);
        self
    }

    /// A number or a boolean: anything whose text is JSON already.
    pub(crate) fn plain(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{value}");
        self
    }

    /// As [`Self::plain`], or `null`.
    pub(crate) fn optional(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.plain(key, value),
            None => self.plain(key, "null"),
        }
    }

    /// What there is so far, for a caller who adds fields and the closing bracket himself.
    pub(crate) fn unclosed(&self) -> &str {
        &self.0
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.quoted(key);
        self.0.push(':');
    }

    fn quoted(&mut self, text: &str) {
        self.0.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                c if c < ' ' => {
                    let _ = write!(self.0, "\\u{:04x}", c as u32);
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_escapes() {
        let text = Object::new()
            .string("a", "q\"\\\n\u{e9}")
            .plain("b", true)
            .optional("c", None::<i32>)
            .optional("d", Some(-3))
            .end();
        assert_eq!(
            text,
            "{\"a\":\"q\\\"\\\\\\u000aé\",\"b\":true,\"c\":null,\"d\":-3}"
        );
        assert_eq!(Object::new().end(), "{}");
    }
}
