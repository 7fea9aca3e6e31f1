//! Frames, as they are on the stream port: a header of 8 bytes, and a payload.

use std::io::{self, Read};

const HEADER_BYTES: usize = 8;
pub(super) const PAYLOAD_MAX_BYTES: usize = 32 * 1024;
/// Holds one whole frame and what was read behind it.
const BUFFER_BYTES: usize = 2 * PAYLOAD_MAX_BYTES;

/// No stream, but the port itself.
pub(super) const PORT_ITSELF: u16 = 65535;

pub(super) const NONCE_BYTES: usize = 16;
pub(in crate::agent) type Nonce = [u8; NONCE_BYTES];
const MARK_BYTES: usize = HEADER_BYTES + NONCE_BYTES;

pub(super) mod kind {
    pub(in crate::agent) const OPEN: u8 = 1;
    pub(in crate::agent) const DATA: u8 = 2;
    pub(in crate::agent) const END: u8 = 3;
    pub(in crate::agent) const CREDIT: u8 = 4;
    pub(in crate::agent) const RESULT: u8 = 5;
    pub(in crate::agent) const RESIZE: u8 = 6;
    pub(in crate::agent) const CANCEL: u8 = 7;
    pub(in crate::agent) const MARK: u8 = 255;
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) stream: u16,
    pub(super) kind: u8,
    pub(super) channel: u8,
    pub(super) payload: &'a [u8],
}

/// A frame with a longer payload than any may have: what follows cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

pub(super) fn header(stream: u16, kind: u8, channel: u8, size: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..2].copy_from_slice(&stream.to_le_bytes());
    (header[2], header[3]) = (kind, channel);
    header[4..].copy_from_slice(&(size as u32).to_le_bytes());
    header
}

pub(super) fn mark(nonce: &Nonce) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..HEADER_BYTES].copy_from_slice(&header(PORT_ITSELF, kind::MARK, 0, NONCE_BYTES));
    mark[HEADER_BYTES..].copy_from_slice(nonce);
    mark
}

/// What the host sends, cut into frames.
pub(super) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            filled: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.filled) = (0, 0);
    }

    /// Takes what one read gives: 0 is the end. All whole frames must have been taken, so that there is room.
    pub(super) fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        }
        let got = from.read(&mut self.buffer[self.filled..])?;
        self.filled += got;
        Ok(got)
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Option<Result<Frame<'_>, TooLong>> {
        let there = &self.buffer[self.start..self.filled];
        let (header, rest) = there.split_first_chunk::<HEADER_BYTES>()?;
        let [low, high, kind, channel, size @ ..] = *header;
        let size = u32::from_le_bytes(size) as usize;
        if size > PAYLOAD_MAX_BYTES {
            return Some(Err(TooLong));
        }
        let payload = rest.get(..size)?;
        self.start += HEADER_BYTES + size;
        Some(Ok(Frame {
            stream: u16::from_le_bytes([low, high]),
            kind,
            channel,
            payload,
        }))
    }

    /// Throws away all up to the mark, and the mark. False: it has not come yet.
    pub(super) fn pass_mark(&mut self, mark: &[u8]) -> bool {
        let there = &self.buffer[self.start..self.filled];
        match there.windows(mark.len()).position(|part| part == mark) {
            Some(place) => {
                self.start += place + mark.len();
                true
            }
            None => {
                // The rest may be its beginning.
                self.start = self.start.max(self.filled.saturating_sub(mark.len() - 1));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u16, kind: u8, payload: &[u8]) -> Vec<u8> {
        [&header(stream, kind, 1, payload.len())[..], payload].concat()
    }

    #[test]
    fn a_header_is_little_endian() {
        assert_eq!(header(0x0102, 3, 4, 0x0506), [2, 1, 3, 4, 6, 5, 0, 0]);
        assert_eq!(mark(&[7; 16])[..9], [255, 255, 255, 0, 16, 0, 0, 0, 7]);
    }

    #[test]
    fn frames_in_any_pieces() {
        let big = vec![9; PAYLOAD_MAX_BYTES];
        let all = [frame(1, 2, b"one"), frame(2, 3, b""), frame(3, 4, &big)].concat();
        for piece in [1, 7, 4096, all.len()] {
            let mut inbox = Inbox::new();
            let mut seen = Vec::new();
            for mut part in all.chunks(piece) {
                while !part.is_empty() {
                    inbox.fill(&mut part).expect("memory can be read");
                    while let Some(frame) = inbox.next() {
                        let frame = frame.expect("a right frame");
                        seen.push((frame.stream, frame.kind, frame.channel, frame.payload.len()));
                    }
                }
            }
            let expected = [(1, 2, 1, 3), (2, 3, 1, 0), (3, 4, 1, PAYLOAD_MAX_BYTES)];
            assert_eq!(seen, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_told() {
        let mut inbox = Inbox::new();
        let long = header(1, 2, 0, PAYLOAD_MAX_BYTES + 1);
        inbox.fill(&mut &long[..]).expect("memory can be read");
        assert_eq!(inbox.next(), Some(Err(TooLong)));
    }

    #[test]
    fn all_before_the_mark_is_thrown_away() {
        let wanted = mark(&[5; 16]);
        let other = mark(&[6; 16]);
        for piece in [1, 5, 24, 10_000] {
            let all = [
                &[255; 50][..],
                &other,
                &wanted[..20],
                &wanted,
                &frame(1, 2, b"x"),
            ]
            .concat();
            let mut inbox = Inbox::new();
            let mut found = false;
            for mut part in all.chunks(piece) {
                inbox.fill(&mut part).expect("memory can be read");
                found = found || inbox.pass_mark(&wanted);
            }
            assert!(found, "in pieces of {piece}");
            let next = inbox.next().expect("whole").expect("right");
            assert_eq!((next.stream, next.payload), (1, &b"x"[..]));
        }
    }
}
