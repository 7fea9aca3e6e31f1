//! Frames on their way to the host.
//!
//! Data is read straight into the buffer, and only while it has room; so it never holds more than a few frames, whatever
//! commands write. Short frames always have room: what asks for them is not read while the host does not take these.

use std::io::{self, Write};

use super::frame::{self, PAYLOAD_MAX_BYTES, kind};

/// While less waits than this, there is room for more data.
const ROOM_BYTES: usize = 64 * 1024;
/// While more waits than this, nothing is read from the port.
const FULL_BYTES: usize = 128 * 1024;

pub(super) struct Out {
    bytes: Vec<u8>,
    written: usize,
}

impl Out {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting_bytes() == 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting_bytes() < ROOM_BYTES
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes() > FULL_BYTES
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn frame(&mut self, stream: u16, kind: u8, channel: u8, payload: &[u8]) {
        self.raw(&frame::header(stream, kind, channel, payload.len()));
        self.raw(payload);
    }

    pub(super) fn credit(&mut self, stream: u16, channel: u8, bytes: u32) {
        self.frame(stream, kind::CREDIT, channel, &bytes.to_le_bytes());
    }

    /// A frame of data of what one read gives, up to a size. No frame where it gives nothing.
    pub(super) fn data(
        &mut self,
        stream: u16,
        channel: u8,
        max_bytes: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let start = self.bytes.len();
        let size = max_bytes.min(PAYLOAD_MAX_BYTES);
        self.raw(&frame::header(stream, kind::DATA, channel, size));
        let content = self.bytes.len();
        self.bytes.resize(content + size, 0);
        let got = read(&mut self.bytes[content..]);
        let size = *got.as_ref().unwrap_or(&0);
        if size == 0 {
            self.bytes.truncate(start);
        } else {
            self.bytes.truncate(content + size);
            let header = frame::header(stream, kind::DATA, channel, size);
            self.bytes[start..content].copy_from_slice(&header);
        }
        got
    }

    /// Writes as much as the port takes now.
    pub(super) fn flush(&mut self, to: &mut impl Write) -> io::Result<()> {
        while !self.is_empty() {
            match to.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(size) => self.written += size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.written >= ROOM_BYTES || self.is_empty() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_into_its_frame() {
        let mut out = Out::new();
        let mut read = |size: usize| {
            out.data(7, 2, 100, |room| {
                assert_eq!(room.len(), 100);
                room[..size].fill(b'x');
                Ok(size)
            })
        };
        assert_eq!(read(0).expect("nothing"), 0);
        assert_eq!(read(3).expect("something"), 3);
        let failed = out.data(7, 2, 100, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(failed.is_err());
        out.credit(7, 1, 258);
        let mut sent = Vec::new();
        out.flush(&mut sent).expect("memory takes all");
        let expected = [
            &[7, 0, 2, 2, 3, 0, 0, 0][..],
            b"xxx",
            &[7, 0, 4, 1, 4, 0, 0, 0, 2, 1, 0, 0],
        ];
        assert_eq!(sent, expected.concat());
        assert!(out.is_empty());
    }

    #[test]
    fn a_slow_port_bounds_it() {
        let mut out = Out::new();
        while out.has_room() {
            out.frame(1, kind::DATA, 1, &[0; PAYLOAD_MAX_BYTES]);
        }
        assert!(!out.is_full());
        assert!(out.waiting_bytes() <= ROOM_BYTES + PAYLOAD_MAX_BYTES + 8);
    }
}
