//! Frames: a header of 8 bytes, a payload, and the connection's seal of 4 bytes. Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0-1 | stream: 0 control, 1 to 65534 chosen by the host, 65535 the port itself |
//! | 2 | [kind](Kind) |
//! | 3 | [channel](crate::channel) |
//! | 4-7 | length of the payload, at most [`PAYLOAD_MAX_BYTES`] |
//! | 8- | payload |
//! | then | seal |

/// Bytes of a header.
pub const HEADER_BYTES: usize = 8;
/// Bytes of a seal.
pub const SEAL_BYTES: usize = 4;
/// Longest payload.
pub const PAYLOAD_MAX_BYTES: usize = 32 * 1024;
/// Longest frame.
pub const FRAME_MAX_BYTES: usize = HEADER_BYTES + PAYLOAD_MAX_BYTES + SEAL_BYTES;

/// The stream of requests and replies.
pub const CONTROL: u16 = 0;
/// Highest number of a stream that carries something.
pub const STREAM_MAX: u16 = 65534;
/// No stream, but the port itself: marks belong to it.
pub const PORT_ITSELF: u16 = 65535;

/// Bytes of a mark's random part.
pub const NONCE_BYTES: usize = 16;
const MARK_PAYLOAD_BYTES: usize = NONCE_BYTES + 4;
/// Bytes of a whole mark.
pub const MARK_BYTES: usize = HEADER_BYTES + MARK_PAYLOAD_BYTES + SEAL_BYTES;
/// How every mark begins.
const MARK_HEADER: [u8; HEADER_BYTES] = [0xff, 0xff, 0xff, 0, MARK_PAYLOAD_BYTES as u8, 0, 0, 0];

/// The last bytes of every frame of one connection.
pub type Seal = [u8; SEAL_BYTES];

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Host to guest, JSON, in [parts](crate::message): begins a stream.
    Open = 1,
    /// Bytes of a channel.
    Data = 2,
    /// The channel has no more bytes.
    End = 3,
    /// A u32: so many more bytes of the channel may be sent.
    Credit = 4,
    /// Guest to host, JSON: how the stream ended. It is the last frame of its stream.
    Result = 5,
    /// Host to guest, two u16: rows and columns of the terminal.
    Resize = 6,
    /// Host to guest: end the process or drop the file; leave it, where it was attached to. A result follows.
    Cancel = 7,
    /// A part of a [message](crate::message) on stream 0.
    Message = 8,
    /// Begins a connection.
    Mark = 255,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Open,
        Self::Data,
        Self::End,
        Self::Credit,
        Self::Result,
        Self::Resize,
        Self::Cancel,
        Self::Message,
        Self::Mark,
    ];

    /// The kind of a number. Nothing for one of a later protocol: such a frame is passed over.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A frame as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The stream's number.
    pub stream: u16,
    /// Nothing for a kind of a later protocol.
    pub kind: Option<Kind>,
    /// The channel of the stream.
    pub channel: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// What the bytes at the beginning of a buffer are, on a connection that has begun.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Not a whole frame yet.
    Partial,
    /// A frame, and the bytes that it takes of the buffer.
    Frame(Frame<'a>, usize),
    /// A new connection begins, behind so many bytes of the buffer.
    Mark(Mark, usize),
    /// No frame of this connection: nothing can be understood until the next mark, which is to be looked for with
    /// [`find_mark`] in the same buffer.
    Broken,
}

/// Reads the frame at the beginning of `bytes`.
#[must_use]
pub fn parse<'a>(bytes: &'a [u8], seal: &Seal) -> Parsed<'a> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Parsed::Partial;
    };
    if *header == MARK_HEADER {
        return match bytes.first_chunk().map(Mark::read) {
            None => Parsed::Partial,
            Some(None) => Parsed::Broken,
            Some(Some(mark)) => Parsed::Mark(mark, MARK_BYTES),
        };
    }
    let [s0, s1, kind, channel, length @ ..] = *header;
    let length = u32::from_le_bytes(length);
    let Some(length) = usize::try_from(length)
        .ok()
        .filter(|it| *it <= PAYLOAD_MAX_BYTES)
    else {
        return Parsed::Broken;
    };
    let Some((payload, rest)) = rest.split_at_checked(length) else {
        return Parsed::Partial;
    };
    match rest.first_chunk::<SEAL_BYTES>() {
        None => Parsed::Partial,
        Some(end) if end != seal => Parsed::Broken,
        Some(_) => Parsed::Frame(
            Frame {
                stream: u16::from_le_bytes([s0, s1]),
                kind: Kind::of(kind),
                channel,
                payload,
            },
            HEADER_BYTES + length + SEAL_BYTES,
        ),
    }
}

/// The header of a frame. The payload is at most [`PAYLOAD_MAX_BYTES`] long, and the seal follows it.
#[must_use]
pub fn header(stream: u16, kind: Kind, channel: u8, payload_bytes: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(payload_bytes <= PAYLOAD_MAX_BYTES, "callers cut");
    let [s0, s1] = stream.to_le_bytes();
    let [l0, l1, l2, l3] = u32::try_from(payload_bytes)
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    [s0, s1, kind as u8, channel, l0, l1, l2, l3]
}

/// Appends a frame. The payload is at most [`PAYLOAD_MAX_BYTES`] long.
pub fn write(out: &mut Vec<u8>, seal: &Seal, stream: u16, kind: Kind, channel: u8, payload: &[u8]) {
    out.reserve(HEADER_BYTES + payload.len() + SEAL_BYTES);
    out.extend_from_slice(&header(stream, kind, channel, payload.len()));
    out.extend_from_slice(payload);
    out.extend_from_slice(seal);
}

/// How a connection begins: the host says it, and the agent says it back with its own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// 16 random bytes of the host's. The first four are the connection's seal.
    pub nonce: [u8; NONCE_BYTES],
    /// The newest protocol of who says it.
    pub newest: u16,
    /// The oldest one that it still speaks.
    pub oldest: u16,
}

impl Mark {
    /// One with this version's numbers.
    #[must_use]
    pub fn own(nonce: [u8; NONCE_BYTES]) -> Self {
        Self {
            nonce,
            newest: crate::PROTOCOL,
            oldest: crate::PROTOCOL_OLDEST,
        }
    }

    /// The seal of the connection that it begins.
    #[must_use]
    pub fn seal(&self) -> Seal {
        let [a, b, c, d, ..] = self.nonce;
        [a, b, c, d]
    }

    /// The protocol that both sides of the connection speak, or nothing when they have none in common.
    #[must_use]
    pub fn common(&self) -> Option<u16> {
        crate::common(
            (crate::PROTOCOL, crate::PROTOCOL_OLDEST),
            (self.newest, self.oldest),
        )
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&MARK_HEADER);
        put(&self.nonce);
        put(&self.newest.to_le_bytes());
        put(&self.oldest.to_le_bytes());
        put(&self.seal());
        bytes
    }

    fn read(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (newest, rest) = rest.split_first_chunk()?;
        let (oldest, seal) = rest.split_first_chunk()?;
        let mark = Self {
            nonce: *nonce,
            newest: u16::from_le_bytes(*newest),
            oldest: u16::from_le_bytes(*oldest),
        };
        (*header == MARK_HEADER && seal == mark.seal()).then_some(mark)
    }
}

/// Where the next mark is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The mark, and where the bytes behind it begin.
    At(Mark, usize),
    /// None yet. The bytes before this place are of no use; what follows may be the beginning of a mark.
    NotBefore(usize),
}

/// Looks for a mark among bytes that nothing is known of.
#[must_use]
pub fn find_mark(bytes: &[u8]) -> Found {
    for (at, window) in bytes.windows(MARK_BYTES).enumerate() {
        if let Some(mark) = window.first_chunk().and_then(Mark::read) {
            return Found::At(mark, at + MARK_BYTES);
        }
    }
    Found::NotBefore(bytes.len().saturating_sub(MARK_BYTES - 1))
}

/// Bytes that end a frame of an earlier connection, whatever was left of it, and are no beginning of a mark: for a host
/// whose mark was not answered, because the guest took it for the rest of such a frame.
#[must_use]
pub fn padding() -> Vec<u8> {
    vec![0; FRAME_MAX_BYTES]
}

#[cfg(test)]
mod tests;
