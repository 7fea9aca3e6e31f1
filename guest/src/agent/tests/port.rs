//! The port itself: marks, wrong frames, limits, a host that goes.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;

use vmint_guest_protocol::STREAMS_MAX;
use vmint_guest_protocol::frame::{Kind, Mark, padding};

use super::host::{error, gone};
use super::{Host, exec, result};
use crate::agent::port::Port;
use crate::agent::server::Server;
use crate::file::tests::Folder;

#[test]
fn nothing_is_heard_before_the_mark() {
    let mut host = Host::connect(None);
    let open = host.bytes(1, Kind::Open, 0, exec("echo early", "").as_bytes());
    host.raw(&open);
    let mark = host.next_mark();
    host.raw(&Host::half_mark(&mark));
    // Together with what comes behind it.
    host.raw(&mark.bytes());
    host.await_mark(&mark);
    assert_eq!(host.run(2, &exec("echo heard", "")).stdout(), "heard\n");
    assert!(host.is_quiet());
}

#[test]
fn a_mark_in_the_middle_of_everything() {
    let mut host = Host::new();
    host.open(1, &exec("sleep 61 & echo $!; wait", ""));
    let pid = host.until(1, "\n");
    host.open(2, &exec("cat /dev/zero", ""));
    host.open(3, &exec("exec cat", r#","stdin":true,"tty":{}"#));
    host.begin();
    assert!(gone(pid.trim()));
    assert!(host.is_quiet(), "all of them have ended");
    assert_eq!(host.run(3, &exec("echo new", "")).stdout(), "new\n");
    for _ in 0..5 {
        host.open(2, &exec("cat /dev/zero", ""));
        host.begin();
    }
    assert_eq!(host.run(2, &exec("echo new", "")).stdout(), "new\n");
}

#[test]
fn half_a_frame_of_a_connection_is_not_completed_by_the_next_one() {
    for cut in [1, 8, 11, 40] {
        let mut host = Host::new();
        host.open(3, &exec("exec cat", r#","stdin":true"#));
        let frame = host.bytes(3, Kind::Data, 0, &[b'x'; 1000]);
        host.raw(&frame[..cut]);
        // The guest takes the first mark for the rest of the frame, as a host learns when it is not answered.
        let mark = host.next_mark();
        host.raw(&mark.bytes());
        host.raw(&padding());
        host.raw(&mark.bytes());
        host.await_mark(&mark);
        // It may have been seen twice.
        host.begin();
        assert_eq!(host.run(3, &exec("echo new", "")).stdout(), "new\n");
    }
}

#[test]
fn the_other_sides_numbers_are_told_even_where_nothing_is_common() {
    let mut host = Host::connect(None);
    let later = Mark {
        newest: 99,
        oldest: 98,
        ..host.next_mark()
    };
    host.raw(&later.bytes());
    host.await_mark(&later);
    host.open(1, &exec("echo deaf", ""));
    host.begin();
    assert!(host.is_quiet());
}

#[test]
fn frames_in_any_pieces_and_of_no_meaning() {
    let mut host = Host::new();
    for byte in host.bytes(7, Kind::Open, 0, exec("echo bytewise", "").as_bytes()) {
        host.raw(&[byte]);
    }
    assert_eq!(host.finish(7).stdout(), "bytewise\n");
    host.open(7, &exec("read line; echo $line", r#","stdin":true"#));
    // An unknown kind, a stream that is not there, the port, control, a second OPEN, short payloads, a wrong channel.
    let mut unknown = host.bytes(7, Kind::Data, 0, b"?");
    unknown[2] = 77;
    host.raw(&unknown);
    host.data(8, "x");
    host.cancel(8);
    host.send(0, Kind::Open, 0, b"{}");
    host.send(0, Kind::Data, 0, b"{}");
    host.send(65535, Kind::Open, 0, b"{}");
    host.open(7, &exec("echo second", ""));
    host.send(7, Kind::Credit, 1, b"12");
    host.send(7, Kind::Credit, 9, &[0; 4]);
    host.send(7, Kind::Resize, 0, b"12");
    host.send(7, Kind::Message, 0, b"12");
    host.send(7, Kind::Data, 1, b"wrong\n");
    host.send(7, Kind::End, 1, b"");
    host.data(7, "right\n");
    assert_eq!(host.finish(7).stdout(), "right\n");
    assert!(host.is_quiet());
}

#[test]
fn an_opening_may_be_longer_than_a_frame_and_no_longer_than_its_limit() {
    let mut host = Host::new();
    let long = "x".repeat(100_000);
    let brought = host.run(
        1,
        &exec("echo ${#1}", &format!(r#","env":{{"A":"{long}"}}"#)),
    );
    assert_eq!(brought.stdout(), "0\n");
    let words = format!(r#"{{"exec":{{"argv":["sh","-c","echo ${{#1}}","sh","{long}"]}}}}"#);
    assert_eq!(host.run(1, &words).stdout(), "100000\n");
    host.open(1, &"x".repeat((4 << 20) + 1));
    let expected = error("argument", 0, "a message is longer than 4194304 bytes");
    assert_eq!(host.finish(1).result, expected);
}

#[test]
fn a_frame_that_is_too_long_or_another_connections_ends_all_until_the_next_mark() {
    let mut host = Host::new();
    for wrong in ["too long", "another seal"] {
        host.open(1, &exec("echo $$; exec sleep 60", ""));
        let pid = host.until(1, "\n");
        let mut frame = host.bytes(1, Kind::Data, 0, b"x");
        match wrong {
            "too long" => frame[4..8].copy_from_slice(&32769_u32.to_le_bytes()),
            _ => frame[9] ^= 1,
        }
        host.raw(&frame);
        assert!(gone(pid.trim()), "{wrong}");
        host.open(2, &exec("echo deaf", ""));
        host.begin();
        assert!(host.is_quiet());
        assert_eq!(host.run(2, &exec("echo hears", "")).stdout(), "hears\n");
    }
}

#[test]
fn one_stream_more_than_the_limit_is_refused() {
    let mut host = Host::new();
    let folder = Folder::new("streams-max");
    let path = folder.path("x");
    let open = format!("{{\"write\":{{\"path\":\"{path}\"}}}}");
    let most = STREAMS_MAX as u16;
    for id in 1..=most {
        host.open(id, &open);
    }
    host.open(most + 1, &open);
    let refused = host.finish(most + 1).result;
    assert_eq!(
        refused,
        error("too_many", 0, "256 streams are open already")
    );
    for id in 1..=most {
        host.cancel(id);
        host.finish(id);
    }
    assert_eq!(host.run(most + 1, &exec("echo now", "")).stdout(), "now\n");
}

#[test]
fn requests_are_understood_or_refused_under_their_number() {
    let mut host = Host::new();
    let refused = |code: &str, message: &str| error(code, 0, message);
    assert_eq!(host.call("ping", "{}"), "{}");
    assert_eq!(host.call("ping", "null"), "{}");
    assert_eq!(
        host.call("ping", r#"{"x":1}"#),
        refused(
            "argument",
            "arguments: unknown field `x`, there are no fields at line 1 column 41"
        )
    );
    assert_eq!(
        host.call("pong", "{}"),
        refused("unknown", "this agent has no command \"pong\"")
    );
    let info = host.call("info", "{}");
    let expected = format!(
        "{{\"version\":\"{}\",\"process_control\":",
        env!("CARGO_PKG_VERSION")
    );
    assert!(info.starts_with(&expected), "{info}");
    assert!(
        host.call("time", "{}")
            .starts_with("{\"clock_realtime_ns\":1")
    );
    assert!(
        host.call("set_time", "{}")
            .contains("\"code\":\"argument\"")
    );
    host.send(0, Kind::Message, 0, b"{\"id\":7}");
    let reply = host.reply();
    assert!(
        reply.starts_with("{\"id\":7,\"error\":{\"code\":\"argument\""),
        "{reply}"
    );
    host.send(0, Kind::Message, 0, b"nonsense");
    assert!(host.reply().starts_with("{\"id\":null,\"error\":"));
}

#[test]
fn a_request_that_is_too_long_is_refused_and_the_next_one_is_answered() {
    let mut host = Host::new();
    let part = [b' '; 32 * 1024];
    for _ in 0..513 {
        host.send(0, Kind::Message, 1, &part);
    }
    host.send(0, Kind::Message, 0, b"{}");
    let reply = host.reply();
    assert!(
        reply.contains("a message is longer than 16777216 bytes"),
        "{reply}"
    );
    assert_eq!(host.call("ping", "{}"), "{}");
}

/// A port that outlives its host: two FIFOs.
#[test]
fn a_host_that_is_away_for_a_moment_goes_on_and_for_longer_begins_anew() {
    let folder = Folder::new("port-fifos");
    let fifo = |name: &str| {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let path = folder.path(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("a FIFO");
        path
    };
    let (to_guest, to_host) = (fifo("to-guest"), fifo("to-host"));
    let open = |path: &str, write: bool| {
        File::options()
            .read(true)
            .write(write)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .expect("the FIFO is there")
    };
    let (input, output) = (open(&to_guest, false), open(&to_host, true));
    std::thread::spawn(move || Server::new(Port::new(input, output), None).run());
    let mut frames = Fifos::connect(&to_guest, &to_host);
    frames.begin(1);
    frames.open(1, &exec("echo $$; exec sleep 60", ""));
    let pid = frames.data(1);
    // Away, and back at once.
    frames.reconnect(&to_guest);
    frames.open(2, &exec("echo still here", ""));
    assert_eq!(frames.data(2), "still here\n");
    // Away for good: no process is left, though no other connection was begun.
    drop(frames);
    assert!(gone(pid.trim()));
    let mut frames = Fifos::connect(&to_guest, &to_host);
    frames.open(3, &exec("echo unheard", ""));
    frames.begin(2);
    frames.open(4, &exec("echo heard", ""));
    assert_eq!(frames.data(4), "heard\n");
}

/// As much of a host as that test needs.
struct Fifos {
    to_guest: File,
    to_host: File,
    seal: [u8; 4],
}

impl Fifos {
    fn connect(to_guest: &str, to_host: &str) -> Self {
        let write = File::options().write(true).open(to_guest);
        Self {
            to_guest: write.expect("the guest reads"),
            to_host: File::open(to_host).expect("the guest writes"),
            seal: [0; 4],
        }
    }

    fn reconnect(&mut self, to_guest: &str) {
        let null = File::options().write(true).open("/dev/null");
        self.to_guest = null.expect("the null device");
        let write = File::options().write(true).open(to_guest);
        self.to_guest = write.expect("the guest reads");
    }

    fn send(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(&mut self.to_guest, bytes).expect("the guest reads");
    }

    fn begin(&mut self, first: u8) {
        let mark = Mark::own([first; 16]);
        self.seal = mark.seal();
        self.send(&mark.bytes());
        let mut heard = Vec::new();
        while !heard.ends_with(&mark.bytes()) {
            heard.extend(self.read(1));
        }
    }

    fn read(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        std::io::Read::read_exact(&mut self.to_host, &mut bytes).expect("the guest writes");
        bytes
    }

    fn open(&mut self, stream: u16, what: &str) {
        let mut bytes = Vec::new();
        vmint_guest_protocol::message::write_open(&mut bytes, &self.seal, stream, what.as_bytes());
        self.send(&bytes);
    }

    /// The next data of a stream.
    fn data(&mut self, stream: u16) -> String {
        loop {
            let header = self.read(8);
            let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
            let payload = self.read(size as usize);
            self.read(4);
            if header[..4] == [stream as u8, 0, Kind::Data as u8, 1] {
                return String::from_utf8(payload).expect("text");
            }
        }
    }
}

#[test]
fn a_host_that_has_gone_takes_its_commands_along() {
    let mut host = Host::new();
    host.open(1, &exec("echo $$; exec sleep 60", ""));
    let pid = host.until(1, "\n");
    drop(host);
    assert!(gone(pid.trim()));
}

#[test]
fn a_command_that_fails_has_its_word() {
    let mut host = Host::new();
    let brought = host.run(1, &exec("echo out; echo err >&2; exit 3", ""));
    assert_eq!(
        (brought.stdout(), brought.stderr()),
        ("out\n".into(), "err\n".into())
    );
    assert_eq!(brought.result, result("3", "null", "exit"));
}
