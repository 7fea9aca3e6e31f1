//! Frames: an 8 byte header and a bounded payload.

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 8;
/// Most bytes of a payload.
pub(super) const MAX_PAYLOAD_BYTES: usize = 32 * 1024;
/// What each channel of each stream may carry before the first `CREDIT`.
pub(super) const WINDOW_BYTES: u32 = 256 * 1024;
/// Streams that the guest has at once.
pub(super) const MAX_STREAMS: usize = 64;
/// Highest id of a stream.
pub(super) const MAX_ID: u16 = 65534;

/// The stream that marks belong to.
const MARK_STREAM: u16 = 65535;
/// Bytes of a mark's payload.
pub(super) const NONCE_BYTES: usize = 16;

/// The channel towards the guest.
pub(super) const TO_GUEST: u8 = 0;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Open = 1,
    Data = 2,
    End = 3,
    Credit = 4,
    Result = 5,
    Resize = 6,
    Cancel = 7,
    Mark = 255,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Open,
        Self::Data,
        Self::End,
        Self::Credit,
        Self::Result,
        Self::Resize,
        Self::Cancel,
        Self::Mark,
    ];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The header of a frame that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stream: u16,
    /// Nothing for a kind of a later protocol.
    pub(super) kind: Option<Kind>,
    pub(super) channel: u8,
    pub(super) length: usize,
}

impl Header {
    /// Reads a header. Nothing when its payload is longer than any may be.
    pub(super) fn read(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [s0, s1, kind, channel, l0, l1, l2, l3] = bytes;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        (length <= MAX_PAYLOAD_BYTES).then_some(Self {
            stream: u16::from_le_bytes([s0, s1]),
            kind: Kind::of(kind),
            channel,
            length,
        })
    }
}

/// Appends a frame. The payload is at most [`MAX_PAYLOAD_BYTES`] long.
pub(super) fn write(out: &mut Vec<u8>, stream: u16, kind: Kind, channel: u8, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD_BYTES, "callers cut");
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&[kind as u8, channel]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
}

/// The mark that both sides send after a reset.
pub(super) fn mark(nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + NONCE_BYTES);
    write(&mut frame, MARK_STREAM, Kind::Mark, 0, &nonce);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_is_written() {
        for kind in Kind::ALL {
            let mut bytes = Vec::new();
            write(&mut bytes, 513, kind, 2, b"abc");
            let header: [u8; HEADER_BYTES] = std::array::from_fn(|at| bytes[at]);
            let wanted = Header {
                stream: 513,
                kind: Some(kind),
                channel: 2,
                length: 3,
            };
            assert_eq!(Header::read(header), Some(wanted));
            assert_eq!(&bytes[HEADER_BYTES..], b"abc");
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let mut bytes = Vec::new();
        write(&mut bytes, 0x0102, Kind::Credit, 1, &[4, 0, 0, 0]);
        assert_eq!(bytes, [2, 1, 4, 1, 4, 0, 0, 0, 4, 0, 0, 0]);
    }

    #[test]
    fn what_is_too_long_is_no_header() {
        assert_eq!(Header::read([1, 0, 2, 1, 1, 0x80, 0, 0]), None);
        assert!(Header::read([1, 0, 2, 1, 0, 0x80, 0, 0]).is_some());
    }
}
