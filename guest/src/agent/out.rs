//! Frames on their way to the host.
//!
//! Data is read straight into the buffer, and only while it has room; so it never holds more than a few frames, whatever
//! commands write. Short frames always have room: what asks for them is not read while the host does not take these.

use std::io::{self, Write};

use vmint_guest_protocol::channel;
use vmint_guest_protocol::frame::{
    self, HEADER_BYTES, Kind, Mark, PAYLOAD_MAX_BYTES, SEAL_BYTES, Seal,
};
use vmint_guest_protocol::message::{self, REPLY_MAX_BYTES};
use vmint_guest_protocol::names::{codes, envelope};

use super::refusal::Refusal;
use super::request::Id;
use crate::json;

/// While less waits than this, there is room for more data.
pub(super) const ROOM_BYTES: usize = 64 * 1024;
/// While more waits than this, nothing is read from the port.
const FULL_BYTES: usize = 128 * 1024;
/// What a reply has around its value, at most.
const ENVELOPE_BYTES: usize = 64;

pub(super) struct Out {
    bytes: Vec<u8>,
    written: usize,
    seal: Seal,
    /// For what is read and goes nowhere, or only to what is kept.
    scratch: Vec<u8>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
            seal: Seal::default(),
            scratch: Vec::new(),
        }
    }

    /// Begins a connection: what was not sent before goes nowhere.
    pub(super) fn begin(&mut self, mark: &Mark) {
        self.clear();
        self.seal = mark.seal();
        self.bytes.extend_from_slice(&Mark::own(mark.nonce).bytes());
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
        // A long reply was here.
        if self.bytes.capacity() > 2 * FULL_BYTES {
            self.bytes.shrink_to(FULL_BYTES);
        }
    }

    pub(super) fn frame(&mut self, stream: u16, kind: Kind, channel: u8, payload: &[u8]) {
        frame::write(&mut self.bytes, &self.seal, stream, kind, channel, payload);
    }

    pub(super) fn credit(&mut self, stream: u16, bytes: u32) {
        self.frame(stream, Kind::Credit, channel::INPUT, &bytes.to_le_bytes());
    }

    pub(super) fn end(&mut self, stream: u16, channel: u8) {
        self.frame(stream, Kind::End, channel, b"");
    }

    /// The last frame of a stream. All that has a `RESULT` is far shorter than a frame.
    pub(super) fn result(&mut self, stream: u16, json: &str) {
        self.frame(stream, Kind::Result, channel::INPUT, json.as_bytes());
    }

    /// The answer to a request; `value` is JSON. The host takes a reply that is too long for a breach of the protocol, and
    /// ends the connection with everything on it: it is told so instead.
    pub(super) fn reply(&mut self, id: Id, value: &str) {
        match value.len() + ENVELOPE_BYTES > REPLY_MAX_BYTES {
            false => self.answer(id, envelope::RETURN, value),
            true => {
                let size = value.len();
                let message =
                    format!("the answer has {size} bytes, and a reply takes {REPLY_MAX_BYTES}");
                self.refuse(id, &Refusal::new(codes::FAILED, message));
            }
        }
    }

    pub(super) fn refuse(&mut self, id: Id, refusal: &Refusal) {
        self.answer(id, envelope::ERROR, &json::text(refusal));
    }

    fn answer(&mut self, id: Id, name: &str, value: &str) {
        let mut text = String::with_capacity(value.len() + ENVELOPE_BYTES);
        for part in ["{\"id\":", &json::text(&id), ",\"", name, "\":", value, "}"] {
            text.push_str(part);
        }
        message::write(&mut self.bytes, &self.seal, text.as_bytes());
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
        let content = start + HEADER_BYTES;
        self.bytes.resize(content + size, 0);
        let got = read(&mut self.bytes[content..]);
        let size = *got.as_ref().unwrap_or(&0);
        if size == 0 {
            self.bytes.truncate(start);
        } else {
            self.bytes.truncate(content + size);
            let header = frame::header(stream, Kind::Data, channel, size);
            self.bytes[start..content].copy_from_slice(&header);
            self.bytes.extend_from_slice(&self.seal);
        }
        got
    }

    /// The payload of the frame that was made last, which has this size.
    pub(super) fn last_payload(&self, size: usize) -> &[u8] {
        let end = self.bytes.len() - SEAL_BYTES;
        &self.bytes[end - size..end]
    }

    /// The data of the frame that was made last once more, for another stream.
    pub(super) fn repeat_data(&mut self, stream: u16, channel: u8, size: usize) {
        let end = self.bytes.len() - SEAL_BYTES;
        let header = frame::header(stream, Kind::Data, channel, size);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_within(end - size..end);
        self.bytes.extend_from_slice(&self.seal);
    }

    /// Room for one read that no stream gets.
    pub(super) fn scratch(&mut self) -> &mut [u8] {
        self.scratch.resize(PAYLOAD_MAX_BYTES, 0);
        &mut self.scratch
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
        if self.is_empty() {
            self.clear();
        } else if self.written >= ROOM_BYTES {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vmint_guest_protocol::frame::{Parsed, parse};

    use super::*;

    const NONCE: [u8; 16] = [3; 16];

    fn out() -> Out {
        let mut out = Out::new();
        out.begin(&Mark::own(NONCE));
        out.clear();
        out
    }

    #[test]
    fn data_is_read_into_its_frame_and_can_be_repeated() {
        let mut out = out();
        let mut read = |size: usize| {
            out.data(7, 2, 100, |room| {
                assert_eq!(room.len(), 100);
                room[..size].fill(b'x');
                Ok(size)
            })
        };
        assert_eq!(read(0).expect("nothing"), 0);
        assert_eq!(read(3).expect("something"), 3);
        assert_eq!(out.last_payload(3), b"xxx");
        out.repeat_data(9, 2, 3);
        let failed = out.data(7, 2, 100, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(failed.is_err());
        let mut sent = Vec::new();
        out.flush(&mut sent).expect("memory takes all");
        let mut expected = Vec::new();
        for stream in [7, 9] {
            frame::write(&mut expected, &[3; 4], stream, Kind::Data, 2, b"xxx");
        }
        assert_eq!(sent, expected);
        assert!(out.is_empty());
    }

    #[test]
    fn replies_have_the_id_that_was_given() {
        let mut out = out();
        out.reply(Some(7), "{}");
        out.refuse(None, &Refusal::new("unknown", "a \"b\""));
        let mut rest = &out.bytes[..];
        let mut replies = Vec::new();
        while let Parsed::Frame(frame, size) = parse(rest, &[3; 4]) {
            assert_eq!((frame.stream, frame.kind), (0, Some(Kind::Message)));
            replies.push(String::from_utf8_lossy(frame.payload).into_owned());
            rest = &rest[size..];
        }
        let refused = r#"{"id":null,"error":{"code":"unknown","errno":0,"message":"a \"b\""}}"#;
        assert_eq!(replies, [r#"{"id":7,"return":{}}"#, refused]);
    }

    #[test]
    fn a_reply_that_would_be_too_long_is_refused() {
        let longest = REPLY_MAX_BYTES - ENVELOPE_BYTES;
        for (size, is_sent) in [(longest, true), (longest + 1, false)] {
            let mut out = out();
            let value = format!("\"{}\"", "x".repeat(size - 2));
            out.reply(Some(i64::MIN), &value);
            let mut parts = message::Parts::default();
            let mut rest = &out.bytes[..];
            let mut reply = String::new();
            while let Parsed::Frame(frame, size) = parse(rest, &[3; 4]) {
                let taken = parts.take(frame.channel, frame.payload, REPLY_MAX_BYTES);
                if let Some(text) = taken.expect("the host takes it") {
                    reply = String::from_utf8_lossy(text).into_owned();
                }
                rest = &rest[size..];
            }
            let (start, end) = reply.split_at(60.min(reply.len()));
            assert_eq!(start.contains("\"return\""), is_sent, "{start}");
            assert_eq!(end.contains("and a reply takes 1048576"), !is_sent);
            assert!(
                reply.starts_with("{\"id\":-9223372036854775808,"),
                "{start}"
            );
        }
    }

    #[test]
    fn a_slow_port_bounds_it() {
        let mut out = out();
        while out.has_room() {
            out.frame(1, Kind::Data, 1, &[0; PAYLOAD_MAX_BYTES]);
        }
        assert!(!out.is_full());
        assert!(out.waiting_bytes() <= ROOM_BYTES + frame::FRAME_MAX_BYTES);
    }
}
