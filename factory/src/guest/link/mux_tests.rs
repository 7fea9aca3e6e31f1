//! What comes from a guest, by property: any bytes, any frames, in any pieces.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::sync::oneshot;
use vmint_guest_protocol::frame::{
    self, CONTROL, FRAME_MAX_BYTES, Kind, PAYLOAD_MAX_BYTES, Parsed, Seal,
};
use vmint_guest_protocol::{WINDOW_BYTES, channel};

use super::mux::{Incoming, Mux, Opening};

const SEAL: Seal = [1, 2, 3, 4];
/// Streams that are open.
const STREAMS: u16 = 3;

/// A frame as a guest may say it, of a stream that is there or not.
#[derive(Clone, Debug)]
struct Said {
    stream: u16,
    kind: u8,
    channel: u8,
    payload: Vec<u8>,
}

fn said() -> impl Strategy<Value = Said> {
    let kind = prop_oneof![
        5 => Just(Kind::Data as u8),
        1 => Just(Kind::End as u8),
        1 => Just(Kind::Credit as u8),
        1 => Just(Kind::Result as u8),
        1 => Just(Kind::Message as u8),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(vec![7; PAYLOAD_MAX_BYTES]),
        Just(br#"{"id": 1, "return": {}}"#.to_vec()),
    ];
    (0..=STREAMS + 1, kind, 0..4u8, payload).prop_map(|(stream, kind, channel, payload)| Said {
        stream,
        kind,
        channel,
        payload,
    })
}

fn bytes_of(said: &[Said]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Said {
        stream,
        kind,
        channel,
        payload,
    } in said
    {
        let at = bytes.len();
        frame::write(&mut bytes, &SEAL, *stream, Kind::Data, *channel, payload);
        bytes[at + 2] = *kind;
    }
    bytes
}

/// A connection with some streams open.
fn mux() -> Mux {
    let mut mux = Mux::new(SEAL);
    for stream in 1..=STREAMS {
        let opened = mux.open(Opening::default()).expect("there is room");
        assert_eq!(opened.0, stream);
    }
    mux
}

/// All that can be taken of the streams, bytes of the same channel put together.
fn taken(mux: &mut Mux) -> Vec<(u16, [Vec<u8>; 2], Option<Bytes>)> {
    let of = |stream| {
        let (mut bytes, mut result) = ([Vec::new(), Vec::new()], None);
        while let Some(incoming) = mux.take(stream) {
            match incoming {
                Ok(Incoming::Data {
                    channel,
                    bytes: more,
                }) => bytes[usize::from(channel - channel::OUTPUT)].extend_from_slice(&more),
                Ok(Incoming::Result(last)) => {
                    result = Some(last);
                    break;
                }
                Err(_) => break,
            }
        }
        (stream, bytes, result)
    };
    (1..=STREAMS).map(of).collect()
}

/// The next thing that is written, once all before it is.
fn next_kinds(mux: &mut Mux, count: usize) -> Vec<(u16, Kind)> {
    let mut kinds = Vec::new();
    for _ in 0..count {
        let mut bytes = Vec::new();
        assert!(mux.write_next(&mut bytes));
        let Parsed::Frame(frame, _) = frame::parse(&bytes, &SEAL) else {
            panic!("what is written can be read");
        };
        kinds.push((frame.stream, frame.kind.expect("a known kind")));
    }
    kinds
}

#[test]
fn requests_go_first_then_what_is_short_then_data_in_turns() {
    let mut mux = mux();
    let opened = next_kinds(&mut mux, 3);
    assert_eq!(opened, [1, 2, 3].map(|stream| (stream, Kind::Open)));
    for stream in [1, 2] {
        let bytes = Bytes::from(vec![7; 2 * PAYLOAD_MAX_BYTES]);
        mux.give(stream, bytes).expect("there is room");
    }
    assert_eq!(next_kinds(&mut mux, 1), [(1, Kind::Data)]);
    assert!(mux.abandon(3));
    let (reply, _answer) = oneshot::channel();
    let message = vec![b' '; PAYLOAD_MAX_BYTES + 1];
    mux.ask(1, message, reply).expect("the link works");
    let wanted = [
        (CONTROL, Kind::Message),
        (CONTROL, Kind::Message),
        (3, Kind::Cancel),
        (2, Kind::Data),
        (1, Kind::Data),
        (2, Kind::Data),
    ];
    assert_eq!(next_kinds(&mut mux, 6), wanted);
    assert!(!mux.write_next(&mut Vec::new()));
}

proptest! {
    #[test]
    fn any_bytes_are_taken_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut incoming = BytesMut::from(&bytes[..]);
        if mux().take_frames(&mut incoming).is_ok() {
            prop_assert!(incoming.len() < FRAME_MAX_BYTES);
        }
    }

    #[test]
    fn frames_mean_the_same_in_any_pieces(
        said in prop::collection::vec(said(), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let bytes = bytes_of(&said);
        let mut whole = mux();
        let at_once = whole.take_frames(&mut BytesMut::from(&bytes[..]));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (mut pieces, mut incoming, mut in_pieces) = (mux(), BytesMut::new(), Ok(()));
        for cut in cuts.windows(2) {
            incoming.extend_from_slice(&bytes[cut[0]..cut[1]]);
            in_pieces = in_pieces.and_then(|()| pieces.take_frames(&mut incoming));
        }
        prop_assert_eq!(&at_once, &in_pieces);
        if at_once.is_ok() {
            prop_assert!(incoming.is_empty());
            prop_assert_eq!(taken(&mut whole), taken(&mut pieces));
        }
    }

    #[test]
    fn what_is_not_taken_never_grows_beyond_the_credit(said in prop::collection::vec(said(), 0..60)) {
        let mut mux = mux();
        // A violation ends the connection: what had come before it can be taken.
        let _ = mux.take_frames(&mut BytesMut::from(&bytes_of(&said)[..]));
        for (stream, channels, _) in taken(&mut mux) {
            for bytes in channels {
                prop_assert!(bytes.len() <= WINDOW_BYTES as usize, "{stream}");
            }
        }
    }
}
