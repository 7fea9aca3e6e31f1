//! Anything that a host may send is understood or refused, and breaks nothing.
//!
//! `VMINT_CASES` says how many of each are tried.

use vmint_guest_protocol::frame::{self, Kind, Mark, PAYLOAD_MAX_BYTES};

use super::super::decoders::{open, record, request};
use super::super::inbox::{Inbox, Next};

const CASES: usize = 50_000;

fn cases() -> usize {
    let wanted = std::env::var("VMINT_CASES");
    wanted.map_or(CASES, |count| count.parse().expect("a number"))
}

/// Numbers that are the same each time: xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Something right, with a few bytes of it changed, taken away, or of another one.
    fn spoil(&mut self, right: &[&str]) -> Vec<u8> {
        const LIKELY: &[u8] = b"{}[]\",:\\u0019-e.ntf \n\xff\x00";
        let mut bytes = right[self.below(right.len())].as_bytes().to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, LIKELY[self.below(LIKELY.len())]),
                2 if !bytes.is_empty() => bytes[at] = LIKELY[self.below(LIKELY.len())],
                3 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                _ => {
                    let other = right[self.below(right.len())].as_bytes();
                    let from = self.below(other.len());
                    bytes.splice(at..at, other[from..].iter().copied());
                }
            }
        }
        bytes
    }
}

const REQUESTS: &[&str] = &[
    r#"{"id":1,"execute":"ping"}"#,
    r#"{"id":2,"execute":"bind","arguments":{"hostname":"a","env":{"A":"1"},"files":[{"path":"/x","content":"Zm9v","mode":420,"owner":{"uid":1,"gid":2}}]}}"#,
    r#"{"id":3,"execute":"identity","arguments":{"entropy":"Zm9v","clock_step_ns":-5,"expect_reseed":true}}"#,
];
const OPENINGS: &[&str] = &[
    r#"{"exec":{"argv":["a","b"],"env":{"A":"\ud83d\ude00"},"cwd":"/","user":7,"timeout_ms":1,"stdin":true,"tty":{"rows":1,"columns":2},"bound_env":false}}"#,
    r#"{"attach":{"process":"p1","replay":true,"follow":false}}"#,
    r#"{"write":{"path":"/x","mode":420,"owner":{"uid":1,"gid":2}}}"#,
    r#"{"read":{"path":"/x"}}"#,
];
const RECORDS: &[&str] = &[
    r#"{"id":"p3","argv":["sh"],"user":null,"tty":false,"state":"exited","pid":99,"started_at_ms":5000,"ended_at_ms":6000,"exit_code":3,"signal":null,"ended_by":"exit","attached":2,"kept_bytes":7,"truncated":true}"#,
];

#[test]
fn any_text_is_understood_or_refused() {
    let mut random = Random(0x5eed);
    let (mut understood, mut refused) = (0, 0);
    let mut count = |is_right: bool| match is_right {
        true => understood += 1,
        false => refused += 1,
    };
    for _ in 0..cases() {
        count(request(&random.spoil(REQUESTS)));
        count(open(&random.spoil(OPENINGS)));
        count(record(&random.spoil(RECORDS)));
    }
    assert!(understood > cases() / 4 && refused > cases() / 4);
}

#[test]
fn any_bytes_are_frames_or_the_end_of_a_connection() {
    let mut random = Random(0xf00d);
    let (mut frames, mut broken) = (0, 0);
    let mut inbox = Inbox::new();
    for case in 0..cases() {
        let mark = Mark::own([case as u8 | 1; 16]);
        let mut bytes = mark.bytes().to_vec();
        for _ in 0..random.below(6) {
            let payload = vec![random.next() as u8; random.below(200)];
            let stream = random.next() as u16;
            let kind = Kind::ALL[random.below(Kind::ALL.len())];
            frame::write(&mut bytes, &mark.seal(), stream, kind, 1, &payload);
        }
        for _ in 0..random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, 0xff),
            }
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let size = random.below(rest.len()) + 1;
            let mut piece = &rest[..size];
            while !piece.is_empty() {
                inbox.fill(&mut piece).expect("memory can be read");
            }
            rest = &rest[size..];
            loop {
                match inbox.next() {
                    Next::Nothing => break,
                    Next::Frame(frame) => {
                        assert!(frame.payload.len() <= PAYLOAD_MAX_BYTES);
                        frames += 1;
                    }
                    Next::Begun(_) => {}
                    Next::Broken => broken += 1,
                }
            }
        }
    }
    assert!(
        frames > cases() / 4 && broken > cases() / 100,
        "{frames}, {broken}"
    );
}
