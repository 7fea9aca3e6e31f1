//! Tests of frames, by example and by property.

use proptest::prelude::*;

use super::*;

const SEAL: Seal = [7, 8, 9, 10];

fn nonce(first: u8) -> [u8; NONCE_BYTES] {
    std::array::from_fn(|at| first.wrapping_add(at as u8))
}

fn written(stream: u16, kind: Kind, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, &SEAL, stream, kind, channel, payload);
    bytes
}

#[test]
fn the_bytes_are_those_of_the_protocol() {
    let credit = written(0x0102, Kind::Credit, 1, &[4, 0, 0, 0]);
    assert_eq!(credit, [2, 1, 4, 1, 4, 0, 0, 0, 4, 0, 0, 0, 7, 8, 9, 10]);
    let mark = Mark {
        nonce: nonce(1),
        newest: 0x0102,
        oldest: 3,
    };
    let bytes = [
        0xff, 0xff, 0xff, 0, 20, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 2,
        1, 3, 0, 1, 2, 3, 4,
    ];
    assert_eq!(mark.bytes(), bytes);
}

#[test]
fn numbers_of_kinds_are_read_as_they_are_written() {
    for kind in Kind::ALL {
        assert_eq!(Kind::of(kind as u8), Some(kind));
    }
    assert_eq!(Kind::of(9), None);
}

#[test]
fn a_longer_payload_than_any_may_be_is_no_frame() {
    let longest = written(1, Kind::Data, 1, &vec![5; PAYLOAD_MAX_BYTES]);
    assert_eq!(longest.len(), FRAME_MAX_BYTES);
    assert!(matches!(
        parse(&longest, &SEAL),
        Parsed::Frame(_, FRAME_MAX_BYTES)
    ));
    let mut longer = longest;
    longer[4..8].copy_from_slice(&(PAYLOAD_MAX_BYTES as u32 + 1).to_le_bytes());
    assert_eq!(parse(&longer, &SEAL), Parsed::Broken);
}

#[test]
fn a_frame_that_was_cut_off_is_not_completed_by_the_next_connection() {
    let whole = written(1, Kind::Data, 0, &[0x55; 100]);
    let next = Mark::own(nonce(40));
    for cut in 0..whole.len() {
        let mut bytes = whole[..cut].to_vec();
        bytes.extend_from_slice(&next.bytes());
        bytes.extend_from_slice(&padding());
        bytes.extend_from_slice(&next.bytes());
        let rest = match parse(&bytes, &SEAL) {
            Parsed::Mark(mark, size) => {
                assert_eq!((cut, mark), (0, next));
                &bytes[size..]
            }
            Parsed::Broken => {
                let Found::At(mark, end) = find_mark(&bytes) else {
                    panic!("the mark is there, cut at {cut}");
                };
                assert_eq!(mark, next);
                &bytes[end..]
            }
            other => panic!("cut at {cut}: {other:?}"),
        };
        assert!(rest.len() <= FRAME_MAX_BYTES + MARK_BYTES);
    }
}

#[test]
fn the_common_protocol_is_the_newest_of_both() {
    let of = |newest, oldest| {
        let mark = Mark {
            nonce: nonce(0),
            newest,
            oldest,
        };
        mark.common()
    };
    assert_eq!(
        of(crate::PROTOCOL, crate::PROTOCOL_OLDEST),
        Some(crate::PROTOCOL)
    );
    assert_eq!(
        of(crate::PROTOCOL + 1, crate::PROTOCOL),
        Some(crate::PROTOCOL)
    );
    assert_eq!(of(crate::PROTOCOL + 1, crate::PROTOCOL + 1), None);
    assert_eq!(of(crate::PROTOCOL_OLDEST - 1, 0), None);
}

fn any_kind() -> impl Strategy<Value = Kind> {
    (0..Kind::ALL.len() - 1).prop_map(|at| Kind::ALL[at])
}

proptest! {
    #[test]
    fn frames_come_as_they_were_written(
        stream in 0..=STREAM_MAX,
        kind in any_kind(),
        channel: u8,
        payload in prop::collection::vec(any::<u8>(), 0..300),
        behind in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = written(stream, kind, channel, &payload);
        let size = bytes.len();
        for cut in 0..size {
            prop_assert_eq!(parse(&bytes[..cut], &SEAL), Parsed::Partial);
        }
        bytes.extend_from_slice(&behind);
        let frame = Frame { stream, kind: Some(kind), channel, payload: &payload };
        prop_assert_eq!(parse(&bytes, &SEAL), Parsed::Frame(frame, size));
        prop_assert_eq!(parse(&bytes, &[7, 8, 9, 11]), Parsed::Broken);
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Parsed::Frame(frame, size) = parse(&bytes, &SEAL) {
            prop_assert_eq!(size, HEADER_BYTES + frame.payload.len() + SEAL_BYTES);
        }
        if let Found::NotBefore(at) = find_mark(&bytes) {
            prop_assert!(bytes.len() - at < MARK_BYTES);
        }
    }

    #[test]
    fn the_mark_is_found_behind_anything(
        before in prop::collection::vec(prop_oneof![Just(0xffu8), Just(0u8), any::<u8>()], 0..100),
        first: u8,
        behind in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mark = Mark::own(nonce(first));
        let bytes = [&before[..], &mark.bytes(), &behind].concat();
        // Random bytes are a mark of their own once in 2^96 cases.
        prop_assert_eq!(find_mark(&bytes), Found::At(mark, before.len() + MARK_BYTES));
        let cut = &bytes[..before.len() + MARK_BYTES - 1];
        let Found::NotBefore(at) = find_mark(cut) else {
            return Err(TestCaseError::fail("half a mark is none"));
        };
        prop_assert!(at <= before.len());
    }
}
