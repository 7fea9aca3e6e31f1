//! Messages: requests and replies on stream 0, JSON of any length in one or more frames; and what opens a stream.
//!
//! A frame of kind [`Message`](Kind::Message) or [`Open`](Kind::Open) has channel [`LAST`] when it is the only or the last
//! part, and [`MORE`] when further parts follow. Parts of two messages of one direction are never mixed, and neither are
//! those of two openings.

use std::fmt;

use crate::frame::{self, CONTROL, Kind, PAYLOAD_MAX_BYTES, Seal};

/// The channel of a message's last part.
pub const LAST: u8 = 0;
/// The channel of a part that others follow.
pub const MORE: u8 = 1;

/// Longest request: what a checkout binds is in one.
pub const REQUEST_MAX_BYTES: usize = 16 << 20;
/// Longest [`Open`](Kind::Open): a command line and its environment are in one.
pub const OPEN_MAX_BYTES: usize = 4 << 20;
/// Longest reply: the list of all processes is in one.
pub const REPLY_MAX_BYTES: usize = 1 << 20;

/// What a message's buffer keeps for the next one.
const KEEP_BYTES: usize = 64 * 1024;

/// Appends a message, in as many frames as it needs.
pub fn write(out: &mut Vec<u8>, seal: &Seal, message: &[u8]) {
    write_parts(out, seal, CONTROL, Kind::Message, message);
}

/// Appends the opening of a stream, in as many frames as it needs.
pub fn write_open(out: &mut Vec<u8>, seal: &Seal, stream: u16, open: &[u8]) {
    write_parts(out, seal, stream, Kind::Open, open);
}

fn write_parts(out: &mut Vec<u8>, seal: &Seal, stream: u16, kind: Kind, text: &[u8]) {
    let mut rest = text;
    while rest.len() > PAYLOAD_MAX_BYTES {
        let (part, later) = rest.split_at(PAYLOAD_MAX_BYTES);
        frame::write(out, seal, stream, kind, MORE, part);
        rest = later;
    }
    frame::write(out, seal, stream, kind, LAST, rest);
}

/// Puts a message together from its parts.
#[derive(Debug, Default)]
pub struct Parts {
    buffer: Vec<u8>,
    is_whole: bool,
    is_too_long: bool,
}

/// A message was longer than it may be. It was thrown away to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Bytes that a message may have.
    pub max_bytes: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a message is longer than {} bytes", self.max_bytes)
    }
}

impl std::error::Error for TooLong {}

impl Parts {
    /// Takes the next part. The message, once it is whole; it is there until the next part is taken.
    ///
    /// # Errors
    /// At the last part of a message of more than `max_bytes`.
    pub fn take(
        &mut self,
        channel: u8,
        payload: &[u8],
        max_bytes: usize,
    ) -> Result<Option<&[u8]>, TooLong> {
        if std::mem::take(&mut self.is_whole) {
            self.buffer.clear();
            self.buffer.shrink_to(KEEP_BYTES);
        }
        if self.is_too_long || self.buffer.len() + payload.len() > max_bytes {
            self.is_too_long = true;
            self.buffer = Vec::new();
        } else {
            self.buffer.extend_from_slice(payload);
        }
        if channel == MORE {
            return Ok(None);
        }
        self.is_whole = true;
        if std::mem::take(&mut self.is_too_long) {
            return Err(TooLong { max_bytes });
        }
        Ok(Some(&self.buffer))
    }

    /// Forgets what has come of a message.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Parsed, parse};

    const SEAL: Seal = [1, 2, 3, 4];

    fn parts(message: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut bytes = Vec::new();
        write(&mut bytes, &SEAL, message);
        let (mut rest, mut parts) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let Parsed::Frame(frame, size) = parse(rest, &SEAL) else {
                panic!("what is written can be read");
            };
            assert_eq!((frame.stream, frame.kind), (CONTROL, Some(Kind::Message)));
            parts.push((frame.channel, frame.payload.to_vec()));
            rest = &rest[size..];
        }
        parts
    }

    #[test]
    fn a_message_of_any_length_comes_as_it_was_said() {
        let mut taken = Parts::default();
        for length in [0, 1, PAYLOAD_MAX_BYTES, PAYLOAD_MAX_BYTES + 1, 200_000] {
            let message: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let parts = parts(&message);
            assert_eq!(parts.len(), length.div_ceil(PAYLOAD_MAX_BYTES).max(1));
            for (at, (channel, part)) in parts.iter().enumerate() {
                let whole = taken.take(*channel, part, length).expect("it fits");
                let is_last = at + 1 == parts.len();
                assert_eq!(whole, is_last.then_some(&message[..]), "{length}");
            }
        }
    }

    #[test]
    fn what_is_too_long_is_thrown_away_to_its_end() {
        let mut taken = Parts::default();
        assert_eq!(taken.take(MORE, b"12", 3), Ok(None));
        assert_eq!(taken.take(MORE, b"34", 3), Ok(None));
        assert_eq!(taken.take(MORE, b"5", 3), Ok(None));
        assert_eq!(taken.take(LAST, b"6", 3), Err(TooLong { max_bytes: 3 }));
        assert_eq!(taken.take(LAST, b"abc", 3), Ok(Some(&b"abc"[..])));
    }

    #[test]
    fn an_opening_that_fits_is_one_frame_and_a_longer_one_more() {
        let mut bytes = Vec::new();
        write_open(&mut bytes, &SEAL, 7, b"{}");
        let mut whole = Vec::new();
        frame::write(&mut whole, &SEAL, 7, Kind::Open, LAST, b"{}");
        assert_eq!(bytes, whole);
        bytes.clear();
        write_open(&mut bytes, &SEAL, 7, &[b' '; PAYLOAD_MAX_BYTES + 1]);
        let Parsed::Frame(first, size) = parse(&bytes, &SEAL) else {
            panic!("what is written can be read");
        };
        assert_eq!((first.stream, first.kind), (7, Some(Kind::Open)));
        assert_eq!(first.channel, MORE);
        let Parsed::Frame(last, _) = parse(&bytes[size..], &SEAL) else {
            panic!("what is written can be read");
        };
        assert_eq!((last.channel, last.payload), (LAST, &b" "[..]));
    }

    #[test]
    fn half_a_message_can_be_forgotten() {
        let mut taken = Parts::default();
        assert_eq!(taken.take(MORE, b"12", 9), Ok(None));
        taken.clear();
        assert_eq!(taken.take(LAST, b"3", 9), Ok(Some(&b"3"[..])));
    }
}
