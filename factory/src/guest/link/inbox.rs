//! What has come of one stream and was not taken yet.
//!
//! Its size in bytes is bounded by the credit that was given, and its size in pieces here: small pieces grow
//! together, so that a guest that sends single bytes costs no more than their number.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use vmint_guest_protocol::frame::PAYLOAD_MAX_BYTES;

/// Pieces kept apart. Beyond it the order between the two channels is given up, and nothing else.
const MAX_PIECES: usize = 256;

/// Bytes of one channel.
#[derive(Debug)]
struct Piece {
    channel: u8,
    bytes: BytesMut,
}

/// A queue of pieces.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Piece>,
}

impl Inbox {
    pub(super) fn push(&mut self, channel: u8, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        if let Some(bytes) = self.grows_on(channel, payload.len()) {
            bytes.extend_from_slice(payload);
        } else {
            let bytes = BytesMut::from(payload);
            self.pieces.push_back(Piece { channel, bytes });
        }
    }

    /// The piece that the next bytes of a channel become part of.
    fn grows_on(&mut self, channel: u8, more: usize) -> Option<&mut BytesMut> {
        let is_full = self.pieces.len() >= MAX_PIECES;
        let (from_end, piece) = self
            .pieces
            .iter_mut()
            .rev()
            .enumerate()
            .find(|(_, piece)| piece.channel == channel)?;
        let fits = piece.bytes.len() + more <= PAYLOAD_MAX_BYTES;
        (is_full || (from_end == 0 && fits)).then_some(&mut piece.bytes)
    }

    /// The channel and the bytes of what came first.
    pub(super) fn pop(&mut self) -> Option<(u8, Bytes)> {
        let Piece { channel, bytes } = self.pieces.pop_front()?;
        Some((channel, bytes.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(channel: u8, bytes: &'static [u8]) -> (u8, Bytes) {
        (channel, Bytes::from_static(bytes))
    }

    #[test]
    fn small_pieces_grow_together_in_order() {
        let mut inbox = Inbox::default();
        for (channel, bytes) in [(1, b"a"), (1, b"b"), (2, b"c"), (1, b"d")] {
            inbox.push(channel, bytes);
        }
        inbox.push(1, b"");
        let taken: Vec<_> = std::iter::from_fn(|| inbox.pop()).collect();
        assert_eq!(taken, [data(1, b"ab"), data(2, b"c"), data(1, b"d")]);
    }

    #[test]
    fn pieces_are_bounded_and_no_byte_is_lost() {
        let mut inbox = Inbox::default();
        for at in 0..100_000_u32 {
            inbox.push(if at % 2 == 0 { 1 } else { 2 }, &at.to_le_bytes());
        }
        assert!(inbox.pieces.len() <= MAX_PIECES);
        let mut bytes = [Vec::new(), Vec::new()];
        while let Some((channel, more)) = inbox.pop() {
            bytes[usize::from(channel) - 1].extend_from_slice(&more);
        }
        for (of, got) in bytes.iter().enumerate() {
            let want: Vec<u8> = (0..100_000_u32)
                .filter(|at| *at as usize % 2 == of)
                .flat_map(u32::to_le_bytes)
                .collect();
            assert!(*got == want, "channel {}", of + 1);
        }
    }

    #[test]
    fn large_pieces_stay_as_they_came() {
        let mut inbox = Inbox::default();
        let full = vec![7; PAYLOAD_MAX_BYTES];
        inbox.push(1, &full);
        inbox.push(1, &full);
        assert_eq!(inbox.pieces.len(), 2);
    }
}
