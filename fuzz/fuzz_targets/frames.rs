//! The decoders that guest and host share, on bytes that neither of them wrote: whatever comes, they go on, read no byte
//! twice, and believe no frame without the connection's seal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmint_guest_protocol::frame::{self, Found, Kind, Parsed, Seal};
use vmint_guest_protocol::message::{Parts, REQUEST_MAX_BYTES};

/// A message's limit that short inputs can reach.
const SHORT_MAX_BYTES: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let Some((seal, mut rest)) = bytes.split_first_chunk() else {
        return;
    };
    let mut seal: Option<Seal> = Some(*seal);
    let (mut short, mut long) = (Parts::default(), Parts::default());
    loop {
        let Some(current) = seal else {
            match frame::find_mark(rest) {
                Found::At(mark, end) => {
                    assert_eq!(&rest[end - frame::MARK_BYTES..end], &mark.bytes()[..]);
                    seal = Some(mark.seal());
                    rest = &rest[end..];
                    continue;
                }
                Found::NotBefore(at) => {
                    assert!(at <= rest.len() && rest.len() - at < frame::MARK_BYTES);
                    return;
                }
            }
        };
        match frame::parse(rest, &current) {
            Parsed::Partial => {
                assert!(rest.len() < frame::FRAME_MAX_BYTES);
                return;
            }
            Parsed::Broken => {
                seal = None;
                short.clear();
                long.clear();
            }
            Parsed::Mark(mark, size) => {
                assert_eq!(&rest[..size], &mark.bytes()[..]);
                seal = Some(mark.seal());
                short.clear();
                long.clear();
                rest = &rest[size..];
            }
            Parsed::Frame(found, size) => {
                assert_eq!(&rest[size - frame::SEAL_BYTES..size], &current);
                if let Some(kind) = found.kind {
                    let mut again = Vec::new();
                    let frame::Frame {
                        stream,
                        channel,
                        payload,
                        ..
                    } = found;
                    frame::write(&mut again, &current, stream, kind, channel, payload);
                    assert_eq!(&rest[..size], &again[..]);
                }
                if found.kind == Some(Kind::Message) {
                    if let Ok(Some(whole)) =
                        short.take(found.channel, found.payload, SHORT_MAX_BYTES)
                    {
                        assert!(whole.len() <= SHORT_MAX_BYTES);
                    }
                    let whole = long.take(found.channel, found.payload, REQUEST_MAX_BYTES);
                    assert!(whole.is_ok(), "no input here is that long");
                }
                rest = &rest[size..];
            }
        }
    }
});
