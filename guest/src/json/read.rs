//! A reader that walks over one JSON text and hands out what its caller asks for.
//!
//! - Nothing is built in memory: a string without escapes is borrowed from the text.
//! - Every byte that is passed over is checked, so that a text is understood wholly or refused.
//! - The closures are `dyn` on purpose: one copy of each loop in the program, and in a fresh clone under emulation only
//!   the first run of any code is dear.

use std::borrow::Cow;
use std::fmt;

/// Deeper nesting is refused, because the reader calls itself.
const DEPTH_MAX: u32 = 128;

/// As much of an unknown name as an error repeats.
const NAME_MAX_BYTES: usize = 32;

/// What is wrong, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrong {
    what: What,
    at_byte: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Expected(&'static str),
    /// The beginning of the name.
    Unknown([u8; NAME_MAX_BYTES]),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_byte = self.at_byte;
        match &self.what {
            What::Expected(expected) => write!(f, "{expected} expected at byte {at_byte}"),
            What::Unknown(name) => {
                let length = name.iter().position(|byte| *byte == 0);
                let name = String::from_utf8_lossy(&name[..length.unwrap_or(NAME_MAX_BYTES)]);
                write!(f, "{name:?} is unknown to this agent, at byte {at_byte}")
            }
        }
    }
}

/// A place in a JSON text.
pub(crate) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
}

/// Takes one field of an object: it must read the value, or [`Reader::skip`] it.
type Field<'f, 'a> = &'f mut dyn FnMut(&str, &mut Reader<'a>) -> Result<(), Wrong>;
/// Takes one item of a list.
type Item<'f, 'a> = &'f mut dyn FnMut(&mut Reader<'a>) -> Result<(), Wrong>;

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// An error at this place.
    pub(crate) fn wrong(&self, expected: &'static str) -> Wrong {
        Wrong {
            what: What::Expected(expected),
            at_byte: self.at,
        }
    }

    /// A field that the reader does not know. Nothing that was asked for is passed over: a host that is newer than the
    /// agent would take it for done.
    pub(crate) fn unknown(&self, name: &str) -> Wrong {
        let mut start = [0; NAME_MAX_BYTES];
        let length = name.len().min(NAME_MAX_BYTES);
        start[..length].copy_from_slice(&name.as_bytes()[..length]);
        Wrong {
            what: What::Unknown(start),
            at_byte: self.at,
        }
    }

    /// Nothing may follow but white space.
    pub(crate) fn end(&mut self) -> Result<(), Wrong> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("the end")),
        }
    }

    pub(crate) fn object(&mut self, field: Field<'_, 'a>) -> Result<(), Wrong> {
        self.members(b'{', b'}', "an object", &mut |reader| {
            let key = reader.string()?;
            reader.expect(b':', "a colon")?;
            field(&key, reader)
        })
    }

    /// As [`Self::object`]; a field that is null is passed over, as if it had been left out.
    pub(crate) fn fields(&mut self, field: Field<'_, 'a>) -> Result<(), Wrong> {
        self.object(&mut |key, reader| {
            if reader.peek() == Some(b'n') {
                reader.skip()
            } else {
                field(key, reader)
            }
        })
    }

    pub(crate) fn list(&mut self, item: Item<'_, 'a>) -> Result<(), Wrong> {
        self.members(b'[', b']', "a list", item)
    }

    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Wrong> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        let plain = self.plain_part()?;
        if self.take(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        self.at = start;
        self.escaped_string().map(Cow::Owned)
    }

    pub(crate) fn integer(&mut self) -> Result<i64, Wrong> {
        let wrong = self.wrong("a whole number");
        let text = self.number()?;
        std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(wrong)
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, Wrong> {
        let wrong = self.wrong("a whole number, not negative");
        let text = self.number()?;
        std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(wrong)
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Wrong> {
        match self.peek() {
            Some(b't') => self.word("true").map(|()| true),
            Some(b'f') => self.word("false").map(|()| false),
            _ => Err(self.wrong("true or false")),
        }
    }

    pub(crate) fn is_string(&mut self) -> bool {
        self.peek() == Some(b'"')
    }

    /// Passes over a value of any kind and returns its text.
    pub(crate) fn raw(&mut self) -> Result<&'a [u8], Wrong> {
        self.peek();
        let start = self.at;
        self.skip()?;
        Ok(&self.text[start..self.at])
    }

    pub(crate) fn skip(&mut self) -> Result<(), Wrong> {
        match self.peek() {
            Some(b'{') => self.object(&mut |_, reader| reader.skip()),
            Some(b'[') => self.list(&mut |reader| reader.skip()),
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => self.number().map(drop),
        }
    }

    fn members(
        &mut self,
        open: u8,
        close: u8,
        what: &'static str,
        member: Item<'_, 'a>,
    ) -> Result<(), Wrong> {
        self.expect(open, what)?;
        if self.depth == DEPTH_MAX {
            return Err(self.wrong("less nesting"));
        }
        self.depth += 1;
        if self.peek() == Some(close) {
            self.at += 1;
        } else {
            loop {
                member(self)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(byte) if byte == close => break self.at += 1,
                    _ => return Err(self.wrong("a comma or the closing bracket")),
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// The part of a string up to its next escape or its end.
    fn plain_part(&mut self) -> Result<&'a str, Wrong> {
        let start = self.at;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' | b'\\' => break,
                0..=0x1f => return Err(self.wrong("no control character in a string")),
                _ => self.at += 1,
            }
        }
        std::str::from_utf8(&self.text[start..self.at]).map_err(|_| Wrong {
            what: What::Expected("UTF-8"),
            at_byte: start,
        })
    }

    fn escaped_string(&mut self) -> Result<String, Wrong> {
        let mut text = String::new();
        loop {
            text.push_str(self.plain_part()?);
            if self.take(b'"') {
                return Ok(text);
            }
            self.expect_here(b'\\', "the end of the string")?;
            text.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, Wrong> {
        let wrong = self.wrong("an escape of JSON");
        let byte = *self.text.get(self.at).ok_or(wrong)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(wrong),
        })
    }

    /// What follows `\u`: one unit of UTF-16, or two of them as a pair.
    fn unicode_escape(&mut self) -> Result<char, Wrong> {
        let wrong = self.wrong("a character in UTF-16");
        let unit = self.four_digits()?;
        let mut units = [unit, 0];
        let mut count = 1;
        if (0xd800..0xdc00).contains(&unit) {
            if !(self.take(b'\\') && self.take(b'u')) {
                return Err(wrong);
            }
            units[1] = self.four_digits()?;
            count = 2;
        }
        match char::decode_utf16(units[..count].iter().copied()).next() {
            Some(Ok(c)) => Ok(c),
            _ => Err(wrong),
        }
    }

    fn four_digits(&mut self) -> Result<u16, Wrong> {
        let wrong = self.wrong("four hexadecimal digits");
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self
                .text
                .get(self.at)
                .and_then(|byte| char::from(*byte).to_digit(16))
                .ok_or(wrong)?;
            unit = unit << 4 | digit as u16;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<&'a [u8], Wrong> {
        self.peek();
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.wrong("a value"))
        } else {
            Ok(())
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Wrong> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err(self.wrong(word));
        }
        self.at += word.len();
        Ok(())
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => return Some(*byte),
            }
        }
        None
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Wrong> {
        self.peek();
        self.expect_here(byte, what)
    }

    fn expect_here(&mut self, byte: u8, what: &'static str) -> Result<(), Wrong> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.wrong(what))
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(here);
        here
    }
}

#[cfg(test)]
mod tests;
