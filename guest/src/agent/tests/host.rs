//! The host's side.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vmint_guest_protocol::frame::{
    self, Found, Kind, MARK_BYTES, Mark, Parsed, Seal, find_mark, parse,
};
use vmint_guest_protocol::message::{self, REPLY_MAX_BYTES};

use crate::agent::port::Port;
use crate::agent::processes::Memory;
use crate::agent::server::Server;
use crate::json;

/// Far above what anything here takes, far below what the long sleeps in these commands take.
pub(super) const GENEROUS: Duration = Duration::from_secs(30);

/// A frame with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) stream: u16,
    pub(super) kind: Kind,
    pub(super) channel: u8,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// What a stream has brought until its `RESULT`.
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

    pub(super) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.channels[2]).into_owned()
    }
}

/// The `RESULT` of an exec.
pub(super) fn result(exit_code: &str, signal: &str, ended_by: &str) -> String {
    format!("{{\"exit_code\":{exit_code},\"signal\":{signal},\"ended_by\":\"{ended_by}\"}}")
}

pub(super) fn error(code: &str, errno: i32, message: &str) -> String {
    format!(
        "{{\"error\":{{\"code\":\"{code}\",\"errno\":{errno},\"message\":{}}}}}",
        json::text(&message)
    )
}

/// The arguments of a script, with further fields.
pub(super) fn script(script: &str, fields: &str) -> String {
    format!(
        "{{\"argv\":[\"sh\",\"-c\",{}]{fields}}}",
        json::text(&script)
    )
}

/// What opens an exec of a script.
pub(super) fn exec(text: &str, fields: &str) -> String {
    format!("{{\"exec\":{}}}", script(text, fields))
}

/// An agent in a thread of this process, and the other end of its port.
pub(super) struct Host {
    port: UnixStream,
    heard: Vec<u8>,
    seal: Seal,
    connections: u8,
    requests: u32,
    replies: message::Parts,
}

impl Host {
    /// Connected, and no connection begun.
    pub(super) fn connect(memory: Option<File>) -> Self {
        let (port, guest) = UnixStream::pair().expect("a pair of sockets");
        guest.set_nonblocking(true).expect("a setting of a socket");
        let input = File::from(OwnedFd::from(guest));
        let output = input.try_clone().expect("a copy of a socket");
        std::thread::spawn(move || {
            Server::new(Port::new(input, output), memory.map(Memory::new)).run()
        });
        Self::on(port)
    }

    pub(super) fn on(port: UnixStream) -> Self {
        port.set_read_timeout(Some(GENEROUS))
            .expect("a setting of a socket");
        Self {
            port,
            heard: Vec::new(),
            seal: Seal::default(),
            connections: 0,
            requests: 0,
            replies: message::Parts::default(),
        }
    }

    pub(super) fn new() -> Self {
        Self::with_memory(None)
    }

    pub(super) fn with_memory(memory: Option<File>) -> Self {
        let mut host = Self::connect(memory);
        host.begin();
        host
    }

    /// The mark of the next connection.
    pub(super) fn next_mark(&mut self) -> Mark {
        self.connections += 1;
        Mark::own(std::array::from_fn(|at| self.connections + 16 * at as u8))
    }

    /// Begins a connection, as a host does.
    pub(super) fn begin(&mut self) {
        let mark = self.next_mark();
        self.raw(&mark.bytes());
        self.await_mark(&mark);
    }

    /// Whatever comes before the mark is of no interest.
    pub(super) fn await_mark(&mut self, mark: &Mark) {
        loop {
            match find_mark(&self.heard) {
                Found::At(found, end) => {
                    self.heard.drain(..end);
                    if found.nonce == mark.nonce {
                        assert_eq!(found, Mark::own(mark.nonce));
                        self.seal = mark.seal();
                        self.replies.clear();
                        return;
                    }
                }
                Found::NotBefore(place) => {
                    self.heard.drain(..place);
                    self.hear();
                }
            }
        }
    }

    fn hear(&mut self) {
        let mut bytes = [0; 65536];
        let size = self.port.read(&mut bytes).expect("something in time");
        assert!(size > 0, "the agent has gone");
        self.heard.extend_from_slice(&bytes[..size]);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.port.write_all(bytes).expect("the agent reads");
    }

    pub(super) fn bytes(&self, stream: u16, kind: Kind, channel: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, &self.seal, stream, kind, channel, payload);
        bytes
    }

    pub(super) fn send(&mut self, stream: u16, kind: Kind, channel: u8, payload: &[u8]) {
        let bytes = self.bytes(stream, kind, channel, payload);
        self.raw(&bytes);
    }

    pub(super) fn open(&mut self, stream: u16, what: &str) {
        let mut bytes = Vec::new();
        message::write_open(&mut bytes, &self.seal, stream, what.as_bytes());
        self.raw(&bytes);
    }

    pub(super) fn data(&mut self, stream: u16, bytes: impl AsRef<[u8]>) {
        self.send(stream, Kind::Data, 0, bytes.as_ref());
    }

    pub(super) fn end(&mut self, stream: u16) {
        self.send(stream, Kind::End, 0, b"");
    }

    pub(super) fn cancel(&mut self, stream: u16) {
        self.send(stream, Kind::Cancel, 0, b"");
    }

    pub(super) fn credit(&mut self, stream: u16, channel: u8, bytes: u32) {
        self.send(stream, Kind::Credit, channel, &bytes.to_le_bytes());
    }

    pub(super) fn frame(&mut self) -> Frame {
        loop {
            match self.frame_if_there() {
                Some(frame) => return frame,
                None => self.hear(),
            }
        }
    }

    /// One that came together with the one before.
    pub(super) fn frame_there(&mut self) -> Frame {
        self.frame_if_there().expect("a whole frame is here")
    }

    fn frame_if_there(&mut self) -> Option<Frame> {
        match parse(&self.heard, &self.seal) {
            Parsed::Frame(frame, size) => {
                let frame = Frame {
                    stream: frame.stream,
                    kind: frame.kind.expect("a kind that is known"),
                    channel: frame.channel,
                    payload: frame.payload.to_vec(),
                };
                self.heard.drain(..size);
                Some(frame)
            }
            Parsed::Partial => None,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a request under its own number.
    pub(super) fn ask(&mut self, execute: &str, arguments: &str) -> u32 {
        self.requests += 1;
        let request = format!(
            "{{\"id\":{},\"execute\":\"{execute}\",\"arguments\":{arguments}}}",
            self.requests
        );
        let mut bytes = Vec::new();
        message::write(&mut bytes, &self.seal, request.as_bytes());
        self.raw(&bytes);
        self.requests
    }

    /// The next reply, where nothing else comes.
    pub(super) fn reply(&mut self) -> String {
        loop {
            let frame = self.frame();
            assert_eq!((frame.stream, frame.kind), (0, Kind::Message), "{frame:?}");
            let taken = self
                .replies
                .take(frame.channel, &frame.payload, REPLY_MAX_BYTES);
            if let Some(text) = taken.expect("not too long") {
                return String::from_utf8(text.to_vec()).expect("JSON is text");
            }
        }
    }

    /// What a request returns, or its error.
    pub(super) fn call(&mut self, execute: &str, arguments: &str) -> String {
        let id = self.ask(execute, arguments);
        let reply = self.reply();
        let value = reply
            .strip_prefix(&format!("{{\"id\":{id},\"return\":"))
            .and_then(|rest| rest.strip_suffix('}'));
        match value {
            Some(value) => value.to_owned(),
            None => reply
                .strip_prefix(&format!("{{\"id\":{id},"))
                .map(|rest| format!("{{{rest}"))
                .unwrap_or_else(|| panic!("{reply}")),
        }
    }

    /// Reads up to the `RESULT` of the only stream, giving credit for all that comes.
    pub(super) fn finish(&mut self, stream: u16) -> Brought {
        self.finish_with(stream, true)
    }

    pub(super) fn finish_with(&mut self, stream: u16, give: bool) -> Brought {
        let mut brought = Brought::default();
        loop {
            let frame = self.frame();
            assert_eq!(frame.stream, stream, "{frame:?}");
            match frame.kind {
                Kind::Data => {
                    if give {
                        self.credit(stream, frame.channel, frame.payload.len() as u32);
                    }
                    brought.channels[usize::from(frame.channel)].extend_from_slice(&frame.payload);
                }
                Kind::End => brought.ended.push(frame.channel),
                Kind::Credit => {}
                Kind::Result => {
                    brought.result = frame.text();
                    return brought;
                }
                other => panic!("a frame of kind {other:?}"),
            }
        }
    }

    /// Opens a stream and reads all of it.
    pub(super) fn run(&mut self, stream: u16, what: &str) -> Brought {
        self.open(stream, what);
        self.finish(stream)
    }

    /// Runs a script, and says what it has written to standard output.
    pub(super) fn sh(&mut self, text: &str) -> String {
        self.run(9999, &exec(text, "")).stdout()
    }

    /// Reads data of the only stream until its text ends so. Returns all of it.
    pub(super) fn until(&mut self, stream: u16, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let frame = self.frame();
            let is_data = (frame.stream, frame.kind) == (stream, Kind::Data);
            assert!(is_data, "{text:?}, then {frame:?}");
            text.push_str(&frame.text());
        }
        text
    }

    /// Reads so many bytes of the only stream's standard output.
    pub(super) fn swallow(&mut self, stream: u16, bytes: usize) {
        let mut got = 0;
        while got < bytes {
            let frame = self.frame();
            assert_eq!(frame.stream, stream, "{frame:?}");
            match (frame.kind, frame.channel) {
                (Kind::Data, 1) => got += frame.payload.len(),
                // Standard error may be at its end by now.
                _ => assert_eq!((frame.kind, frame.channel), (Kind::End, 2)),
            }
        }
        assert_eq!(got, bytes);
    }

    /// True: the agent has nothing else to say before it answers a request.
    pub(super) fn is_quiet(&mut self) -> bool {
        assert!(self.heard.is_empty(), "something was heard");
        self.call("ping", "{}") == "{}" && self.heard.is_empty()
    }

    /// The number of bytes of a mark.
    pub(super) fn half_mark(mark: &Mark) -> [u8; MARK_BYTES / 2] {
        std::array::from_fn(|at| mark.bytes()[at])
    }
}

pub(super) fn alive(pid: &str) -> bool {
    // A zombie that was not waited for yet does not live.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits for the end of a process that was killed.
pub(super) fn gone(pid: &str) -> bool {
    await_that(|| !alive(pid))
}

/// Waits for something to become true, without taking the processor from what it waits for.
pub(super) fn await_that(mut is_so: impl FnMut() -> bool) -> bool {
    const LOOK_AGAIN: Duration = Duration::from_millis(2);
    let give_up = Instant::now() + GENEROUS;
    while !is_so() {
        if Instant::now() > give_up {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    true
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Host {
    /// Runs something on a stream while another one, which is quiet, stays open. Its `RESULT`.
    pub(super) fn run_beside(&mut self, stream: u16, quiet: u16, what: &str) -> String {
        self.open(stream, what);
        loop {
            let frame = self.frame();
            assert_ne!(frame.stream, quiet, "{frame:?}");
            if frame.kind == Kind::Result {
                return frame.text();
            }
        }
    }
}

impl Host {
    /// Reads up to the `RESULT` of two streams.
    pub(super) fn finish_both(&mut self, first: u16, second: u16) {
        let mut open = vec![first, second];
        while !open.is_empty() {
            let frame = self.frame();
            if frame.kind == Kind::Result {
                open.retain(|stream| *stream != frame.stream);
            }
        }
    }
}
