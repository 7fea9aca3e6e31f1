//! The agent's own memory, with the real program: whatever commands write, it does not grow.
//!
//! Each port is a terminal in raw mode, which the agent opens by its path.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::process::{Child, Command};

/// What it may gain while ten megabytes want to come through.
const GROWTH_MAX_KIB: u64 = 2048;

/// A terminal: our end, and the path of the other.
fn terminal() -> (File, String) {
    let (mut ours, mut theirs) = (-1, -1);
    let mut name = [0 as libc::c_char; 64];
    // SAFETY: termios is plain numbers, for which zeros are valid; the calls fill what they are given, and a path in
    // /dev/pts is shorter than the buffer.
    let (file, path) = unsafe {
        let mut raw: libc::termios = std::mem::zeroed();
        libc::cfmakeraw(&mut raw);
        let made = libc::openpty(
            &mut ours,
            &mut theirs,
            name.as_mut_ptr(),
            &raw,
            std::ptr::null(),
        );
        assert_eq!(made, 0, "a terminal");
        let path = std::ffi::CStr::from_ptr(name.as_ptr());
        (
            File::from_raw_fd(ours),
            path.to_str().expect("a plain path").to_owned(),
        )
    };
    // The other end stays open in this process, so that it is never hung up.
    (file, path)
}

fn resident_kib(agent: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number of KiB")
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0, kind, 0];
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn without_credit_nothing_is_gathered() {
    let ((mut port, path), (mut streams, streams_path)) = (terminal(), terminal());
    let mut agent = Command::new(env!("CARGO_BIN_EXE_helper"))
        .args(["agent", "--port", &path, "--stream-port", &streams_path])
        .spawn()
        .expect("the agent starts");
    let nonce = [b'n'; 16];
    port.write_all(b"{\"execute\":\"vmint-stream-reset\",\"arguments\":{\"nonce\":\"6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e\"}}\n")
        .expect("the agent reads");
    let mut answer = [0; 14];
    port.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"{\"return\":{}}\n");
    let mut mark = vec![255, 255, 255, 0, 16, 0, 0, 0];
    mark.extend_from_slice(&nonce);
    streams.write_all(&mark).expect("the agent reads");
    let mut heard = [0; 24];
    streams.read_exact(&mut heard).expect("the mark");
    assert_eq!(heard, mark[..]);
    let before = resident_kib(&agent);
    let open = frame(
        1,
        br#"{"exec":{"argv":["sh","-c","head -c 10485760 /dev/zero"]}}"#,
    );
    streams.write_all(&open).expect("the agent reads");
    let (mut header, mut payload, mut got) = ([0; 8], vec![0; 32 * 1024], 0);
    while got < 256 * 1024 {
        streams.read_exact(&mut header).expect("a frame");
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        streams
            .read_exact(&mut payload[..size])
            .expect("the rest of it");
        got += size;
    }
    // Nothing comes any more, and nothing is gathered.
    let mut entry = [libc::pollfd {
        fd: streams.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    // SAFETY: the pointer and the count describe `entry`.
    let ready = unsafe { libc::poll(entry.as_mut_ptr(), 1, 300) };
    assert_eq!(ready, 0, "it is out of credit");
    let grown = resident_kib(&agent) - before;
    // The command goes with its stream.
    streams.write_all(&frame(7, b"")).expect("the agent reads");
    loop {
        streams.read_exact(&mut header).expect("a frame");
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        streams
            .read_exact(&mut payload[..size])
            .expect("the rest of it");
        if header[2] == 5 {
            break;
        }
    }
    agent.kill().expect("a child of ours");
    agent.wait().expect("a child of ours");
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB more");
}
