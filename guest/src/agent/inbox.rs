//! What the host sends, cut into lines.
//!
//! - A line may have come in any number of pieces, and any number of lines in one piece.
//! - The byte 0xFF, which no JSON has, throws away the line that it is in.
//! - The buffer starts small, grows for a long line only, and shrinks when that was taken.

use std::io::{self, Read};

use super::LINE_MAX_BYTES;

/// A page: as much as the port gives in one read.
const BUFFER_BYTES: usize = 4096;
const RESYNC: u8 = 0xff;

pub(super) struct Inbox {
    buffer: Vec<u8>,
    /// Where the line begins that is not whole yet.
    start: usize,
    /// Up to where it was searched for its end.
    searched: usize,
    filled: usize,
    /// The rest of a line that was too long is thrown away.
    skipping: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    TooLong,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            searched: 0,
            filled: 0,
            skipping: false,
        }
    }

    /// Takes what one read gives: 0 is the end.
    pub(super) fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        let got = from.read(&mut self.buffer[self.filled..])?;
        self.filled += got;
        Ok(got)
    }

    /// The next whole line, without its end. A line that is too long is told of once, at its limit.
    pub(super) fn next_line(&mut self) -> Option<Line<'_>> {
        while self.searched < self.filled {
            let at = self.searched;
            self.searched += 1;
            match self.buffer[at] {
                b'\n' => {
                    let start = std::mem::replace(&mut self.start, self.searched);
                    let skipped = std::mem::take(&mut self.skipping);
                    if !skipped && at - start <= LINE_MAX_BYTES {
                        return Some(Line::Whole(&self.buffer[start..at]));
                    }
                    if !skipped {
                        return Some(Line::TooLong);
                    }
                }
                RESYNC => {
                    self.start = self.searched;
                    self.skipping = false;
                }
                _ => {}
            }
        }
        if self.filled - self.start <= LINE_MAX_BYTES && !self.skipping {
            return None;
        }
        // Nothing of it is wanted, neither now nor later.
        self.start = self.filled;
        (!std::mem::replace(&mut self.skipping, true)).then_some(Line::TooLong)
    }

    /// Forgets what is not a whole line yet.
    pub(super) fn clear(&mut self) {
        *self = Self {
            buffer: std::mem::take(&mut self.buffer),
            start: 0,
            searched: 0,
            filled: 0,
            skipping: false,
        };
    }

    fn make_room(&mut self) {
        if self.start == self.filled {
            (self.start, self.searched, self.filled) = (0, 0, 0);
            if self.buffer.len() > BUFFER_BYTES {
                self.buffer = vec![0; BUFFER_BYTES];
            }
        } else if self.filled == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start.., 0);
            self.searched -= self.start;
            self.filled -= self.start;
            self.start = 0;
        }
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(inbox: &mut Inbox, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            inbox.fill(&mut bytes).expect("memory can be read");
            while let Some(line) = inbox.next_line() {
                lines.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong => "too long".to_owned(),
                });
            }
        }
        lines
    }

    #[test]
    fn lines_in_any_pieces() {
        let mut inbox = Inbox::new();
        assert_eq!(lines(&mut inbox, b"one\ntw"), ["one"]);
        assert_eq!(lines(&mut inbox, b"o\n\nth"), ["two", ""]);
        assert_eq!(lines(&mut inbox, b"ree\n"), ["three"]);
    }

    #[test]
    fn the_resync_byte_throws_away_a_part_of_a_line() {
        let mut inbox = Inbox::new();
        assert_eq!(lines(&mut inbox, b"lost\xff\xffkept\n{garbage"), ["kept"]);
        assert_eq!(lines(&mut inbox, b"\xffa\nb\xff\nc\n"), ["a", "", "c"]);
    }

    #[test]
    fn long_lines_grow_the_buffer_for_a_while() {
        let mut inbox = Inbox::new();
        let long = "x".repeat(1 << 20);
        assert_eq!(
            lines(&mut inbox, format!("a\n{long}\nb\n").as_bytes()),
            ["a", &long, "b"]
        );
        assert_eq!(lines(&mut inbox, b"c\n"), ["c"]);
        assert_eq!(inbox.buffer.len(), BUFFER_BYTES);
    }

    #[test]
    fn too_long_is_told_once_and_got_over() {
        let mut inbox = Inbox::new();
        let mut text = vec![b'x'; LINE_MAX_BYTES * 2];
        text.extend_from_slice(b"x\nnext\n");
        assert_eq!(lines(&mut inbox, &text), ["too long", "next"]);
        assert_eq!(
            lines(&mut inbox, &vec![b'x'; LINE_MAX_BYTES + 1]),
            ["too long"]
        );
        assert_eq!(lines(&mut inbox, b"xx\xffnext\n"), ["next"]);
    }

    #[test]
    fn the_longest_line_is_taken() {
        let mut inbox = Inbox::new();
        let mut text = vec![b'x'; LINE_MAX_BYTES];
        text.push(b'\n');
        assert_eq!(lines(&mut inbox, &text)[0].len(), LINE_MAX_BYTES);
    }

    #[test]
    fn a_new_conversation_starts_empty() {
        let mut inbox = Inbox::new();
        assert!(lines(&mut inbox, b"half of a li").is_empty());
        inbox.clear();
        assert_eq!(lines(&mut inbox, b"whole\n"), ["whole"]);
    }
}
