//! Replies on their way to the host.
//!
//! Text goes to one small buffer, and from there to the port. What a command has written is kept as it is, and is
//! turned into base64 only when its turn has come: 8 MiB of output need no 11 MiB of text in the guest's memory.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::request::Id;
use crate::base64;
use crate::json::Object;

/// The buffer is filled up to this, and what fits goes out in one write: most replies do.
const READY_BYTES: usize = 16 * 1024;
/// Bytes that become one part of base64: a multiple of three, so that parts follow each other without padding.
const PART_BYTES: usize = READY_BYTES / 4 * 3;

enum Piece {
    Text(Vec<u8>),
    Base64 { bytes: Vec<u8>, sent: usize },
}

pub(super) struct Outbox {
    ready: Vec<u8>,
    written: usize,
    later: VecDeque<Piece>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            ready: Vec::with_capacity(READY_BYTES),
            written: 0,
            later: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty()
    }

    /// What commands have written, and the host has not taken yet.
    pub(super) fn held_bytes(&self) -> usize {
        let pieces = self.later.iter().map(|piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Base64 { bytes, .. } => bytes.len(),
        });
        pieces.sum()
    }

    /// Forgets what is not written yet.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.later.clear();
        self.written = 0;
    }

    /// A whole reply; `value` is JSON.
    pub(super) fn reply(&mut self, id: &Id, value: &str) {
        self.begin_reply();
        self.text(value);
        self.end_reply(id);
    }

    pub(super) fn begin_reply(&mut self) {
        self.text("{\"return\":");
    }

    pub(super) fn end_reply(&mut self, id: &Id) {
        if let Some(id) = id.text() {
            self.text(",\"id\":");
            self.text(id);
        }
        self.text("}\n");
    }

    pub(super) fn error(&mut self, id: &Id, class: &str, desc: &str) {
        self.text("{\"error\":");
        self.text(
            &Object::new()
                .string("class", class)
                .string("desc", desc)
                .end(),
        );
        self.end_reply(id);
    }

    /// The byte that no JSON has: the host throws away what it has read before.
    pub(super) fn resync(&mut self) {
        self.push(&[0xff]);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.push(text.as_bytes());
    }

    /// A JSON string with the base64 of the bytes.
    pub(super) fn base64(&mut self, bytes: Vec<u8>) {
        self.text("\"");
        if !bytes.is_empty() {
            self.later.push_back(Piece::Base64 { bytes, sent: 0 });
            self.refill();
        }
        self.text("\"");
    }

    /// Writes as much as the port takes now.
    pub(super) fn flush(&mut self, to: &mut impl Write) -> io::Result<()> {
        while !self.is_empty() {
            match to.write(&self.ready[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(size) => self.written += size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.written == self.ready.len() {
                self.ready.clear();
                self.written = 0;
                self.refill();
            }
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.later.back_mut() {
            None if self.ready.len() < READY_BYTES => self.ready.extend_from_slice(bytes),
            Some(Piece::Text(text)) => text.extend_from_slice(bytes),
            None | Some(Piece::Base64 { .. }) => self.later.push_back(Piece::Text(bytes.to_vec())),
        }
    }

    /// Moves what waits to the buffer, as far as that has room.
    fn refill(&mut self) {
        while self.ready.len() < READY_BYTES {
            match self.later.front_mut() {
                None => return,
                Some(Piece::Text(text)) => self.ready.append(text),
                Some(Piece::Base64 { bytes, sent }) => {
                    let part = &bytes[*sent..];
                    let part = &part[..part.len().min(PART_BYTES)];
                    base64::encode_to(&mut self.ready, part);
                    *sent += part.len();
                    if *sent < bytes.len() {
                        continue;
                    }
                }
            }
            self.later.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that takes some bytes, then none, in turn.
    struct Narrow {
        taken: Vec<u8>,
        full: bool,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.full = !self.full;
            if self.full {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let size = bytes.len().min(777);
            self.taken.extend_from_slice(&bytes[..size]);
            Ok(size)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sent(mut outbox: Outbox) -> String {
        let mut port = Narrow {
            taken: Vec::new(),
            full: false,
        };
        while !outbox.is_empty() {
            outbox.flush(&mut port).expect("the port takes something");
        }
        String::from_utf8(port.taken).expect("JSON is text")
    }

    fn id(text: &str) -> Id {
        Id::from_json(text.as_bytes()).expect("a short id")
    }

    #[test]
    fn replies_have_the_id_that_was_given() {
        let mut outbox = Outbox::new();
        outbox.reply(&id("7"), "{}");
        outbox.reply(&Id::none(), "1");
        outbox.error(&id("\"x\""), "GenericError", "a \"b\"");
        assert_eq!(
            sent(outbox),
            "{\"return\":{},\"id\":7}\n{\"return\":1}\n{\"error\":{\"class\":\"GenericError\",\"desc\":\"a \\\"b\\\"\"},\"id\":\"x\"}\n"
        );
    }

    #[test]
    fn big_streams_are_encoded_on_the_way() {
        for size in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 100_000] {
            let bytes: Vec<u8> = (0..size).map(|place| place as u8).collect();
            let mut outbox = Outbox::new();
            outbox.begin_reply();
            outbox.base64(bytes.clone());
            outbox.text(",");
            outbox.base64(b"foo".to_vec());
            outbox.end_reply(&id("1"));
            let mut expected = b"{\"return\":\"".to_vec();
            base64::encode_to(&mut expected, &bytes);
            expected.extend_from_slice(b"\",\"Zm9v\",\"id\":1}\n");
            assert_eq!(sent(outbox).as_bytes(), expected, "{size}");
        }
    }

    #[test]
    fn what_is_not_sent_can_be_forgotten() {
        let mut outbox = Outbox::new();
        outbox.base64(vec![0; 100_000]);
        outbox.clear();
        assert!(outbox.is_empty());
        outbox.reply(&Id::none(), "2");
        assert_eq!(sent(outbox), "{\"return\":2}\n");
    }
}
