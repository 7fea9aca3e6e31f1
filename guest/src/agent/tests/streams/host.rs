//! The host's side of the stream port.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::agent::port::Port;
use crate::agent::tests::Client;
use crate::agent::tests::client::{GENEROUS, quoted};
use crate::hex;

pub(super) const OPEN: u8 = 1;
pub(super) const DATA: u8 = 2;
pub(super) const END: u8 = 3;
pub(super) const CREDIT: u8 = 4;
pub(super) const RESULT: u8 = 5;
pub(super) const RESIZE: u8 = 6;
pub(super) const CANCEL: u8 = 7;
pub(super) const MARK: u8 = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) stream: u16,
    pub(super) kind: u8,
    pub(super) channel: u8,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

pub(super) fn bytes(stream: u16, kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = stream.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[kind, channel]);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// What a stream has brought until its RESULT.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) channels: [Vec<u8>; 3],
    /// Channels in the order in which they ended.
    pub(super) ended: Vec<u8>,
    pub(super) result: String,
}

impl Brought {
    pub(super) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.channels[1]).into_owned()
    }
}

pub(super) fn result(exit_code: &str, signal: &str, timed_out: bool) -> String {
    format!(
        "{{\"exit_code\":{exit_code},\"signal\":{signal},\"timed_out\":{timed_out},\"spawn_error\":null}}"
    )
}

/// `{"exec": ...}` of a script, with further fields.
pub(super) fn exec(script: &str, fields: &str) -> String {
    format!(
        "{{\"exec\":{{\"argv\":[\"sh\",\"-c\",{}]{fields}}}}}",
        quoted(script)
    )
}

pub(super) struct Host {
    pub(super) agent: Client<UnixStream>,
    port: UnixStream,
    resets: u8,
}

impl Host {
    /// Connected, and not synchronized yet.
    pub(super) fn connect() -> Self {
        let (port, guest) = UnixStream::pair().expect("a pair of sockets");
        guest.set_nonblocking(true).expect("a setting of a socket");
        port.set_read_timeout(Some(GENEROUS))
            .expect("a setting of a socket");
        let mut guest = Some(guest);
        let agent = Client::with_streams(Box::new(move || {
            let guest = guest.take().expect("the port is opened once");
            let output = guest.try_clone().expect("a copy of a socket");
            Ok(Port::new(
                OwnedFd::from(guest).into(),
                OwnedFd::from(output).into(),
            ))
        }));
        Self {
            agent,
            port,
            resets: 0,
        }
    }

    pub(super) fn new() -> Self {
        let mut host = Self::connect();
        host.reset();
        host
    }

    pub(super) fn nonce(&self) -> [u8; 16] {
        [self.resets; 16]
    }

    pub(super) fn ask_for_reset(&mut self) {
        self.resets += 1;
        let nonce = hex::encode(&self.nonce());
        let request = format!(
            "{{\"execute\":\"vmint-stream-reset\",\"arguments\":{{\"nonce\":\"{nonce}\"}}}}"
        );
        assert_eq!(self.agent.call(&request), "{\"return\":{}}");
    }

    /// As a host begins; whatever comes before the mark is of no interest.
    pub(super) fn reset(&mut self) {
        self.ask_for_reset();
        let mark = bytes(65535, MARK, 0, &self.nonce());
        self.raw(&mark);
        let mut heard = Vec::new();
        while !heard.ends_with(&mark) {
            let mut byte = [0];
            self.port
                .read_exact(&mut byte)
                .expect("the agent sends the mark back");
            heard.push(byte[0]);
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.port.write_all(bytes).expect("the agent reads");
    }

    pub(super) fn send(&mut self, stream: u16, kind: u8, channel: u8, payload: &[u8]) {
        self.raw(&bytes(stream, kind, channel, payload));
    }

    pub(super) fn open(&mut self, stream: u16, what: &str) {
        self.send(stream, OPEN, 0, what.as_bytes());
    }

    pub(super) fn credit(&mut self, stream: u16, channel: u8, bytes: u32) {
        self.send(stream, CREDIT, channel, &bytes.to_le_bytes());
    }

    pub(super) fn frame(&mut self) -> Frame {
        let mut header = [0; 8];
        self.port
            .read_exact(&mut header)
            .expect("the agent says something in time");
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        assert!(size <= 32 * 1024, "a frame of {size} bytes");
        let mut payload = vec![0; size];
        self.port
            .read_exact(&mut payload)
            .expect("the frame is whole");
        Frame {
            stream: u16::from_le_bytes([header[0], header[1]]),
            kind: header[2],
            channel: header[3],
            payload,
        }
    }

    /// Reads up to the RESULT of the only stream, giving credit for all that comes.
    pub(super) fn finish(&mut self, stream: u16) -> Brought {
        self.finish_with(stream, true)
    }

    pub(super) fn finish_with(&mut self, stream: u16, give: bool) -> Brought {
        let mut brought = Brought::default();
        loop {
            let frame = self.frame();
            assert_eq!(frame.stream, stream);
            match frame.kind {
                DATA => {
                    if give {
                        self.credit(stream, frame.channel, frame.payload.len() as u32);
                    }
                    brought.channels[usize::from(frame.channel)].extend_from_slice(&frame.payload);
                }
                END => brought.ended.push(frame.channel),
                CREDIT => {}
                RESULT => {
                    brought.result = frame.text();
                    return brought;
                }
                other => panic!("a frame of kind {other}"),
            }
        }
    }

    /// Opens a stream and reads all of it.
    pub(super) fn run(&mut self, stream: u16, what: &str) -> Brought {
        self.open(stream, what);
        self.finish(stream)
    }

    /// Reads data until its text ends so. Returns all of it.
    pub(super) fn until(&mut self, stream: u16, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let frame = self.frame();
            assert_eq!(
                (frame.stream, frame.kind),
                (stream, DATA),
                "{text:?}, then {frame:?}"
            );
            text.push_str(&frame.text());
        }
        text
    }

    /// True: the agent has nothing to say before this is answered on its other port.
    pub(super) fn is_quiet(&mut self) -> bool {
        assert_eq!(
            self.agent.call("{\"execute\":\"guest-ping\"}"),
            "{\"return\":{}}"
        );
        self.port
            .set_nonblocking(true)
            .expect("a setting of a socket");
        let quiet = self
            .port
            .read(&mut [0])
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        self.port
            .set_nonblocking(false)
            .expect("a setting of a socket");
        quiet
    }

    /// The host goes, and its agent stays.
    pub(super) fn hang_up(self) -> Client<UnixStream> {
        self.agent
    }
}
