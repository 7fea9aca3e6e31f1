//! The request whose turn it is to be written.

use std::os::fd::OwnedFd;

/// What is left to write of one request. Nothing of it is kept once it is written: there are secrets in some. What is
/// written stays in its place until then, since moving the rest each time would take a long line's length squared.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    line: Vec<u8>,
    written: usize,
    /// What goes with the next byte.
    passing: Option<OwnedFd>,
}

impl Outgoing {
    pub(super) fn new(line: Vec<u8>, passing: Option<OwnedFd>) -> Self {
        Self {
            line,
            written: 0,
            passing,
        }
    }

    /// Whether all of it is written.
    pub(super) fn is_done(&self) -> bool {
        self.line.is_empty()
    }

    /// The bytes that are left.
    pub(super) fn rest(&self) -> &[u8] {
        &self.line[self.written..]
    }

    /// The descriptor that goes with the next byte.
    pub(super) fn passing(&self) -> Option<&OwnedFd> {
        self.passing.as_ref()
    }

    /// So many bytes of the rest were written, and the descriptor with them.
    pub(super) fn wrote(&mut self, count: usize) {
        self.passing = None;
        self.written += count;
        if self.written >= self.line.len() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest line of a checkout, in pieces as a socket takes them.
    #[test]
    fn a_long_line_is_written_without_being_moved_and_nothing_of_it_stays() {
        const LINE_BYTES: usize = 16 << 20;
        const PIECE_BYTES: usize = 200 << 10;
        let line: Vec<u8> = (0..LINE_BYTES).map(|at| at.to_le_bytes()[0]).collect();
        let wanted = line.clone();
        let mut outgoing = Outgoing::new(line, None);
        let end = outgoing.rest().as_ptr_range().end;
        let mut written = Vec::new();
        while !outgoing.is_done() {
            let rest = outgoing.rest();
            assert_eq!(rest.as_ptr_range().end, end, "the rest was moved");
            let piece = &rest[..rest.len().min(PIECE_BYTES)];
            written.extend_from_slice(piece);
            let count = piece.len();
            outgoing.wrote(count);
        }
        assert!(written == wanted);
        assert_eq!(outgoing.line.capacity(), 0, "secrets stay in memory");
    }

    #[test]
    fn a_descriptor_goes_with_the_first_byte_alone() -> std::io::Result<()> {
        let null = std::fs::File::open("/dev/null")?;
        let mut outgoing = Outgoing::new(b"line".to_vec(), Some(null.into()));
        assert!(outgoing.passing().is_some());
        outgoing.wrote(1);
        assert!(outgoing.passing().is_none());
        assert_eq!(outgoing.rest(), b"ine");
        Ok(())
    }
}
