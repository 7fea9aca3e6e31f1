//! The host's side.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::port::Port;
use crate::agent::server::Server;
use crate::agent::streams::OpenPort;
use crate::json::Reader;

/// Far above what anything here takes, far below what the long sleeps in these commands take.
pub(super) const GENEROUS: Duration = Duration::from_secs(30);

pub(super) struct Client<S> {
    stream: S,
    heard: Vec<u8>,
}

/// A machine without a stream port.
fn no_streams() -> OpenPort {
    Box::new(|| Port::open("/nowhere/vmint.stream.0"))
}

impl Client<UnixStream> {
    pub(super) fn new() -> Self {
        Self::with_streams(no_streams())
    }

    pub(super) fn with_streams(open_stream_port: OpenPort) -> Self {
        let (host, guest) = UnixStream::pair().expect("a pair of sockets");
        guest.set_nonblocking(true).expect("a setting of a socket");
        host.set_read_timeout(Some(GENEROUS))
            .expect("a setting of a socket");
        let output = guest.try_clone().expect("a copy of a socket");
        std::thread::spawn(move || Server::new(Port::new(guest, output), open_stream_port).run());
        Self {
            stream: host,
            heard: Vec::new(),
        }
    }
}

impl<S: Read + Write> Client<S> {
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the agent reads");
    }

    pub(super) fn line(&mut self) -> String {
        let mut searched = 0;
        loop {
            if let Some(end) = self.heard[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let end = searched + end;
                let rest = self.heard.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.heard, rest);
                line.pop();
                // The one byte that is no text, as something that can be seen in a failed comparison.
                let mark = usize::from(line.first() == Some(&0xff));
                return "[resync]".repeat(mark)
                    + std::str::from_utf8(&line[mark..]).expect("JSON is text");
            }
            searched = self.heard.len();
            let mut bytes = [0; 65536];
            let size = self
                .stream
                .read(&mut bytes)
                .expect("the agent answers in time");
            assert!(size > 0, "the agent has gone");
            self.heard.extend_from_slice(&bytes[..size]);
        }
    }

    pub(super) fn call(&mut self, request: &str) -> String {
        self.send(format!("{request}\n"));
        self.line()
    }

    pub(super) fn exec(&mut self, arguments: &str) -> Outcome {
        Outcome::parse(&self.call(&format!(
            "{{\"execute\":\"vmint-exec\",\"id\":1,\"arguments\":{arguments}}}"
        )))
    }

    pub(super) fn sh(&mut self, script: &str) -> Outcome {
        self.exec(
            &crate::json::Object::new()
                .json("argv", &format!("[\"sh\",\"-c\",{}]", quoted(script)))
                .end(),
        )
    }
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    let object = crate::json::Object::new().string("", text).end();
    object[4..object.len() - 1].to_owned()
}

/// The answer of `vmint-exec`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) id: String,
    pub(super) exit_code: Option<i64>,
    pub(super) signal: Option<i64>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) truncated: (bool, bool),
    pub(super) timed_out: bool,
    pub(super) errno: Option<i64>,
    pub(super) message: String,
}

impl Outcome {
    pub(super) fn parse(line: &str) -> Self {
        let mut outcome = Self::default();
        let mut returned = false;
        let mut reader = Reader::new(line.as_bytes());
        let read = reader.object(&mut |key, value| {
            match key {
                "id" => outcome.id = String::from_utf8_lossy(value.raw()?).into_owned(),
                "return" => {
                    returned = true;
                    value.fields(&mut |key, value| outcome.take(key, value))?;
                }
                _ => value.skip()?,
            }
            Ok(())
        });
        assert!(read.is_ok() && returned, "no outcome: {line}");
        outcome
    }

    fn take(&mut self, key: &str, value: &mut Reader<'_>) -> Result<(), crate::json::Wrong> {
        let bytes = |text: &str| crate::base64::decode(text).expect("base64");
        match key {
            "exit_code" => self.exit_code = Some(value.integer()?),
            "signal" => self.signal = Some(value.integer()?),
            "stdout" => self.stdout = bytes(&value.string()?),
            "stderr" => self.stderr = bytes(&value.string()?),
            "stdout_truncated" => self.truncated.0 = value.boolean()?,
            "stderr_truncated" => self.truncated.1 = value.boolean()?,
            "timed_out" => self.timed_out = value.boolean()?,
            "spawn_error" => value.object(&mut |key, value| {
                match key {
                    "errno" => self.errno = Some(value.integer()?),
                    _ => self.message = value.string()?.into_owned(),
                }
                Ok(())
            })?,
            other => panic!("field {other} is not in the protocol"),
        }
        Ok(())
    }

    pub(super) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A port that outlives its host: two FIFOs.
pub(super) struct Line {
    directory: PathBuf,
}

impl Line {
    pub(super) fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("vmint-agent-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a fresh directory");
        for end in ["to-guest", "to-host"] {
            make_fifo(&directory.join(end));
        }
        let line = Self { directory };
        let input = line.open("to-guest", false);
        // Open for reading as well, so that it has a reader while no host is there.
        let output = line.open("to-host", true);
        std::thread::spawn(move || Server::new(Port::new(input, output), no_streams()).run());
        line
    }

    fn open(&self, end: &str, write: bool) -> File {
        let path = self.directory.join(end);
        OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .expect("the FIFO is there")
    }

    pub(super) fn connect(&self) -> Client<Fifos> {
        let to_guest = OpenOptions::new()
            .write(true)
            .open(self.directory.join("to-guest"))
            .expect("the guest reads");
        let to_host = File::open(self.directory.join("to-host")).expect("the guest writes");
        Client {
            stream: Fifos { to_guest, to_host },
            heard: Vec::new(),
        }
    }
}

pub(super) fn make_fifo(path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: the string ends with a zero byte.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0, "mkfifo {path:?}");
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub(super) struct Fifos {
    to_guest: File,
    to_host: File,
}

impl Read for Fifos {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.to_host.read(bytes)
    }
}

impl Write for Fifos {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.to_guest.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
