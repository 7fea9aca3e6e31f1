//! The agent's own memory, with the real program: whatever commands write, it does not grow.
//!
//! The port is a terminal in raw mode, which the agent opens by its path.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use vmint_guest_protocol::frame::{self, HEADER_BYTES, Kind, Mark, SEAL_BYTES};
use vmint_guest_protocol::{KEPT_MAX_BYTES, message};

/// What it may gain while ten megabytes want to come through.
const GROWTH_MAX_KIB: u64 = 2048;
const MARK: Mark = Mark {
    nonce: [b'n'; 16],
    newest: 2,
    oldest: 2,
};

struct Agent {
    port: File,
    /// Open here too, so that the terminal is never hung up.
    _other: File,
    child: Child,
}

impl Agent {
    fn start() -> Self {
        let options = || {
            let mut options = File::options();
            options.read(true).write(true).custom_flags(libc::O_NOCTTY);
            options
        };
        let port = options().open("/dev/ptmx").expect("a terminal");
        unlockpt(&port).expect("ours");
        let path = ptsname(&port, Vec::new()).expect("it has a path");
        let path = path.into_string().expect("a plain path");
        let other = options().open(&path).expect("its other end");
        let mut raw = tcgetattr(&other).expect("a terminal");
        raw.make_raw();
        tcsetattr(&other, OptionalActions::Now, &raw).expect("a terminal");
        let child = Command::new(env!("CARGO_BIN_EXE_vmint-agent"))
            .args(["--port", &path])
            .spawn()
            .expect("the agent starts");
        let mut agent = Self {
            port,
            _other: other,
            child,
        };
        agent.send(&MARK.bytes());
        let mut heard = [0; frame::MARK_BYTES];
        agent.port.read_exact(&mut heard).expect("the mark");
        assert_eq!(heard, MARK.bytes());
        agent
    }

    fn send(&mut self, bytes: &[u8]) {
        self.port.write_all(bytes).expect("the agent reads");
    }

    fn open(&mut self, stream: u16, what: &str) {
        let mut bytes = Vec::new();
        message::write_open(&mut bytes, &MARK.seal(), stream, what.as_bytes());
        self.send(&bytes);
    }

    fn ask(&mut self, request: &str) -> String {
        let mut bytes = Vec::new();
        message::write(&mut bytes, &MARK.seal(), request.as_bytes());
        self.send(&bytes);
        let (_, payload) = self.frame();
        String::from_utf8(payload).expect("JSON is text")
    }

    /// The kind and the payload of the next frame.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; HEADER_BYTES];
        self.port.read_exact(&mut header).expect("a frame");
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let mut rest = vec![0; size + SEAL_BYTES];
        self.port.read_exact(&mut rest).expect("the rest of it");
        rest.truncate(size);
        (header[2], rest)
    }

    fn is_quiet(&self) -> bool {
        let mut entries = [PollFd::from_borrowed_fd(self.port.as_fd(), PollFlags::IN)];
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 300_000_000,
        };
        poll(&mut entries, Some(&moment)).expect("one descriptor can be polled") == 0
    }

    fn resident_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(status).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        let number = number.and_then(|number| number.parse().ok());
        number.expect("a number of KiB")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn without_credit_nothing_is_gathered() {
    let mut agent = Agent::start();
    let before = agent.resident_kib();
    agent.open(
        1,
        r#"{"exec":{"argv":["sh","-c","head -c 10485760 /dev/zero"]}}"#,
    );
    let mut got = 0;
    while got < 256 * 1024 {
        got += agent.frame().1.len();
    }
    assert!(agent.is_quiet(), "it is out of credit");
    let grown = agent.resident_kib() - before;
    // The command goes with its stream.
    let mut cancel = Vec::new();
    frame::write(&mut cancel, &MARK.seal(), 1, Kind::Cancel, 0, b"");
    agent.send(&cancel);
    while agent.frame().0 != Kind::Result as u8 {}
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more");
}

#[test]
fn what_a_process_has_written_is_kept_up_to_its_limit() {
    let mut agent = Agent::start();
    let before = agent.resident_kib();
    let started = agent.ask(
        r#"{"id":1,"execute":"start","arguments":{"argv":["sh","-c","head -c 104857600 /dev/zero"]}}"#,
    );
    assert!(started.contains("\"id\":\"p1\""), "{started}");
    let mut told = String::new();
    while !told.contains("\"exited\"") {
        // The process is not to be kept from the processor.
        assert!(agent.is_quiet());
        told = agent.ask(r#"{"id":2,"execute":"process","arguments":{"process":"p1"}}"#);
    }
    assert!(told.contains(&format!(
        "\"kept_bytes\":{KEPT_MAX_BYTES},\"truncated\":true"
    )));
    let grown = agent.resident_kib() - before;
    let most = GROWTH_MAX_KIB + 2 * KEPT_MAX_BYTES as u64 / 1024;
    assert!(grown < most, "{grown} KiB more");
}
