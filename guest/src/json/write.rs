//! One flat JSON object on one line: all that is ever answered.

use crate::hex;

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

    /// A value that is JSON already.
    pub(crate) fn json(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        self.0.push_str(value);
        self
    }

    pub(crate) fn number(mut self, key: &str, value: impl Into<i64>) -> Self {
        self.key(key);
        push_number(&mut self.0, value.into());
        self
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        self.json(key, if value { "true" } else { "false" })
    }

    pub(crate) fn number_or_null(self, key: &str, value: Option<impl Into<i64>>) -> Self {
        match value {
            Some(value) => self.number(key, value),
            None => self.json(key, "null"),
        }
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
        push_quoted(&mut self.0, text);
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    push_quoted(&mut json, text);
    json
}

fn push_quoted(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => {
                json.push_str("\\u00");
                json.push_str(&hex::encode(&[c as u8]));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

/// As `Display` does it, with a tenth of its code: each piece of code that a fresh clone runs has a price.
pub(crate) fn push_number(text: &mut String, number: i64) {
    /// An i64 has 19 digits at most.
    const DIGITS_MAX: usize = 19;
    let mut digits = [0; DIGITS_MAX];
    let mut first = DIGITS_MAX;
    let mut rest = number.unsigned_abs();
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        text.push('-');
    }
    digits[first..]
        .iter()
        .for_each(|digit| text.push(char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_escapes() {
        let text = Object::new()
            .string("a", "q\"\\\n\u{e9}")
            .flag("b", true)
            .number_or_null("c", None::<i32>)
            .number_or_null("d", Some(-3))
            .json("e", "[]")
            .end();
        assert_eq!(
            text,
            "{\"a\":\"q\\\"\\\\\\u000aé\",\"b\":true,\"c\":null,\"d\":-3,\"e\":[]}"
        );
        assert_eq!(Object::new().end(), "{}");
    }

    #[test]
    fn numbers_as_display_has_them() {
        for number in [0, 1, -1, 9, 10, 1234567890, i64::MAX, i64::MIN] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }
}
