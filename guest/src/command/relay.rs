//! One stream of the command, passed on up to a cap of its own, and one that it shares with others.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;

/// As much as a pipe holds by default, so that a full one is emptied by one read.
const BUFFER_BYTES: usize = 64 * 1024;

/// The command's end of a stream, ours, and how much may still pass.
pub(crate) struct Relay<W> {
    /// `None` once the last writer has closed it.
    pipe: Option<File>,
    sink: W,
    left_bytes: u64,
    truncated: bool,
}

impl<W: Write> Relay<W> {
    /// Without a pipe nothing ever comes.
    pub(crate) fn new(pipe: Option<OwnedFd>, sink: W, max_bytes: u64) -> Self {
        Self {
            pipe: pipe.map(File::from),
            sink,
            left_bytes: max_bytes,
            truncated: false,
        }
    }

    /// What has passed.
    pub(crate) fn take_sink(&mut self) -> W
    where
        W: Default,
    {
        std::mem::take(&mut self.sink)
    }

    /// What has passed so far.
    pub(crate) fn sink(&self) -> &W {
        &self.sink
    }

    /// What to poll, while there is something to come.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    /// Passes on what one read gives. Call it when the pipe is readable.
    pub(crate) fn pass(&mut self, buffer: &mut Buffer) -> io::Result<()> {
        self.pass_at_most(buffer, BUFFER_BYTES).map(drop)
    }

    /// As [`Self::pass`]; a stream that cannot be read any more is closed.
    pub(crate) fn pass_or_close(&mut self, buffer: &mut Buffer) {
        if self.pass(buffer).is_err() {
            self.pipe = None;
        }
    }

    /// Passes on what the pipe holds now, and not what comes later: a background child may never stop writing.
    pub(crate) fn drain(&mut self, buffer: &mut Buffer) -> io::Result<()> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        let mut held_bytes = sys::readable_bytes(pipe)?;
        while held_bytes > 0 {
            let size = held_bytes.min(BUFFER_BYTES);
            match self.pass_at_most(buffer, size)? {
                0 => break,
                passed => held_bytes -= passed,
            }
        }
        Ok(())
    }

    fn pass_at_most(&mut self, buffer: &mut Buffer, size: usize) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(0);
        };
        let got = match pipe.read(&mut buffer.bytes[..size]) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        };
        if got == 0 {
            self.pipe = None;
            return Ok(0);
        }
        let kept = usize::try_from(self.left_bytes)
            .unwrap_or(usize::MAX)
            .min(buffer.left_bytes)
            .min(got);
        self.sink.write_all(&buffer.bytes[..kept])?;
        self.left_bytes -= kept as u64;
        buffer.left_bytes -= kept;
        self.truncated |= kept < got;
        Ok(got)
    }
}

/// One buffer for all streams, and how much all of them together may still pass.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    left_bytes: usize,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER_BYTES],
            left_bytes: usize::MAX,
        }
    }

    /// From now on only so much more passes.
    pub(crate) fn limit(&mut self, left_bytes: usize) {
        self.left_bytes = left_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_cap_and_reads_on() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let mut kept = Vec::new();
        let mut relay = Relay::new(Some(reader.into()), &mut kept, 5);
        let mut buffer = Buffer::new();
        writer.write_all(b"abc").expect("room in the pipe");
        relay.pass(&mut buffer).expect("readable");
        assert!(!relay.truncated());
        writer.write_all(b"defgh").expect("room in the pipe");
        relay.drain(&mut buffer).expect("readable");
        assert!(relay.truncated());
        drop(writer);
        relay.pass(&mut buffer).expect("end of file");
        assert!(relay.fd().is_none());
        assert_eq!(kept, b"abcde");
    }

    #[test]
    fn streams_share_a_limit() {
        let mut buffer = Buffer::new();
        buffer.limit(4);
        let mut kept = Vec::new();
        for text in [b"abc", b"def"] {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            let mut relay = Relay::new(Some(reader.into()), &mut kept, 9);
            writer.write_all(text).expect("room in the pipe");
            relay.drain(&mut buffer).expect("readable");
            assert_eq!(relay.truncated(), text == b"def");
        }
        assert_eq!(kept, b"abcd");
    }

    #[test]
    fn draining_does_not_wait() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut relay = Relay::new(Some(reader.into()), Vec::new(), 5);
        relay.drain(&mut Buffer::new()).expect("nothing to read");
        assert!(relay.fd().is_some());
        drop(writer);
    }

    #[test]
    fn exactly_the_cap_is_not_truncated() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let mut relay = Relay::new(Some(reader.into()), Vec::new(), 3);
        writer.write_all(b"abc").expect("room in the pipe");
        relay.drain(&mut Buffer::new()).expect("readable");
        assert!(!relay.truncated());
    }
}
