//! What the host sends, as frames of the connection that it has begun.
//!
//! ```text
//! deaf ──MARK──► synced ──MARK──► synced
//!   ▲               │
//!   └──no frame of this connection, or the host has gone
//! ```

use std::io::{self, Read};

use vmint_guest_protocol::frame::{Found, Frame, Mark, Parsed, Seal, find_mark, parse};

/// A page: as much as the port gives in one read. One that gives less has most likely given all. The longest frame makes
/// the buffer grow to sixteen of them.
pub(super) const READ_MAX_BYTES: usize = 4096;

pub(super) struct Inbox {
    buffer: Vec<u8>,
    /// Where the frame begins that is not whole yet.
    start: usize,
    filled: usize,
    /// `None`: deaf.
    seal: Option<Seal>,
}

/// What comes next of what has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    Nothing,
    Frame(Frame<'a>),
    /// A connection begins, and the one before is over.
    Begun(Mark),
    /// The connection is over.
    Broken,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; READ_MAX_BYTES],
            start: 0,
            filled: 0,
            seal: None,
        }
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.seal.is_none()
    }

    /// Takes what one read gives: 0 is the end.
    pub(super) fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        if self.start == self.filled {
            (self.start, self.filled) = (0, 0);
        } else if self.filled == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start.., 0);
            self.filled -= self.start;
            self.start = 0;
        }
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let got = from.read(&mut self.buffer[self.filled..])?;
        self.filled += got;
        Ok(got)
    }

    pub(super) fn next(&mut self) -> Next<'_> {
        let Some(seal) = self.seal else {
            return self.look_for_mark();
        };
        match parse(&self.buffer[self.start..self.filled], &seal) {
            Parsed::Partial => Next::Nothing,
            Parsed::Frame(frame, size) => {
                self.start += size;
                Next::Frame(frame)
            }
            Parsed::Mark(mark, size) => {
                self.start += size;
                self.seal = seal_of(&mark);
                Next::Begun(mark)
            }
            Parsed::Broken => {
                self.seal = None;
                Next::Broken
            }
        }
    }

    /// Nothing is a frame until the next mark.
    pub(super) fn be_deaf(&mut self) {
        self.seal = None;
    }

    fn look_for_mark(&mut self) -> Next<'_> {
        match find_mark(&self.buffer[self.start..self.filled]) {
            Found::At(mark, end) => {
                self.start += end;
                self.seal = seal_of(&mark);
                Next::Begun(mark)
            }
            Found::NotBefore(place) => {
                self.start += place;
                Next::Nothing
            }
        }
    }
}

/// A host that speaks no protocol of ours learns so from our mark, and is not understood.
fn seal_of(mark: &Mark) -> Option<Seal> {
    mark.common().map(|_| mark.seal())
}

#[cfg(test)]
mod tests {
    use vmint_guest_protocol::frame::{self, FRAME_MAX_BYTES, Kind, PAYLOAD_MAX_BYTES};

    use super::*;

    fn mark(first: u8) -> Mark {
        Mark::own([first; 16])
    }

    fn fill(inbox: &mut Inbox, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            inbox.fill(&mut bytes).expect("memory can be read");
        }
    }

    fn data(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &[first; 4], 1, Kind::Data, 0, payload);
        bytes
    }

    #[test]
    fn nothing_is_heard_before_a_mark() {
        let mut inbox = Inbox::new();
        fill(&mut inbox, &data(1, b"early"));
        assert_eq!(inbox.next(), Next::Nothing);
        fill(
            &mut inbox,
            &[&mark(1).bytes()[..], &data(1, b"heard")].concat(),
        );
        assert_eq!(inbox.next(), Next::Begun(mark(1)));
        assert!(matches!(inbox.next(), Next::Frame(frame) if frame.payload == b"heard"));
        assert_eq!(inbox.next(), Next::Nothing);
    }

    #[test]
    fn another_seal_ends_the_connection_and_the_mark_behind_it_is_found() {
        let mut inbox = Inbox::new();
        let bytes = [&mark(1).bytes()[..], &data(2, b"x"), &mark(3).bytes()].concat();
        fill(&mut inbox, &bytes);
        assert_eq!(inbox.next(), Next::Begun(mark(1)));
        assert_eq!(inbox.next(), Next::Broken);
        assert!(inbox.is_deaf());
        assert_eq!(inbox.next(), Next::Begun(mark(3)));
    }

    #[test]
    fn half_a_frame_of_an_earlier_connection_is_got_over() {
        let whole = data(1, &[9; PAYLOAD_MAX_BYTES]);
        for cut in [1, 7, 8, 20, 5000, whole.len() - 1] {
            let mut inbox = Inbox::new();
            fill(&mut inbox, &mark(1).bytes());
            assert_eq!(inbox.next(), Next::Begun(mark(1)));
            let again = [
                &whole[..cut],
                &mark(2).bytes(),
                &frame::padding(),
                &mark(2).bytes(),
            ];
            let (mut begun, mut broken) = (0, 0);
            for part in again {
                fill(&mut inbox, part);
                loop {
                    match inbox.next() {
                        Next::Nothing => break,
                        Next::Begun(_) => begun += 1,
                        Next::Broken => broken += 1,
                        Next::Frame(frame) => assert_eq!(frame.stream, 0, "cut at {cut}"),
                    }
                }
            }
            assert!(begun >= 1 && broken >= 1, "cut at {cut}: {begun}, {broken}");
            fill(&mut inbox, &data(2, b"now"));
            assert!(matches!(inbox.next(), Next::Frame(frame) if frame.payload == b"now"));
        }
    }

    #[test]
    fn the_longest_frames_come_in_any_pieces() {
        let mut inbox = Inbox::new();
        fill(&mut inbox, &mark(1).bytes());
        assert_eq!(inbox.next(), Next::Begun(mark(1)));
        let long = data(1, &[7; PAYLOAD_MAX_BYTES]);
        let bytes = [&long[..], &long, &long].concat();
        let mut seen = 0;
        for piece in bytes.chunks(4097) {
            fill(&mut inbox, piece);
            while let Next::Frame(frame) = inbox.next() {
                assert_eq!(frame.payload, [7; PAYLOAD_MAX_BYTES]);
                seen += 1;
            }
        }
        assert_eq!(seen, 3);
        assert!(inbox.buffer.len() <= 2 * FRAME_MAX_BYTES);
    }

    #[test]
    fn a_host_of_no_common_protocol_is_told_and_not_heard() {
        let mut inbox = Inbox::new();
        let later = Mark {
            newest: u16::MAX,
            oldest: u16::MAX,
            ..mark(1)
        };
        fill(&mut inbox, &[&later.bytes()[..], &data(1, b"x")].concat());
        assert_eq!(inbox.next(), Next::Begun(later));
        assert_eq!(inbox.next(), Next::Nothing);
    }
}
