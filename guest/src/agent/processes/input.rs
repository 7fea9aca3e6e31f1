//! What hosts send to a process's standard input.
//!
//! Each stream that is attached may send no more than its credit, and gets credit back only for what the process has
//! taken: so no more than that ever waits here. What several send is put together in the order in which it comes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};

use vmint_guest_protocol::WINDOW_BYTES;

use crate::sys;

/// Credit is given back in steps of this, so that it costs few frames and the sender never runs dry.
const CREDIT_STEP_BYTES: u32 = 64 * 1024;
/// Bytes behind which a terminal begins a new line: line ends, and the characters that interrupt, stop, or end a file.
const LINE_ENDERS: [u8; 6] = [b'\n', b'\r', 0x03, 0x04, 0x1a, 0x1c];

/// More was sent than there was credit for.
#[derive(Debug)]
pub(in crate::agent) struct OverCredit;

/// The credit that the host has for one channel of one stream.
#[derive(Debug)]
pub(in crate::agent) struct Grant {
    left_bytes: u32,
    owed_bytes: u32,
}

impl Grant {
    pub(in crate::agent) fn new() -> Self {
        Self {
            left_bytes: WINDOW_BYTES,
            owed_bytes: 0,
        }
    }

    pub(in crate::agent) fn spend(&mut self, bytes: usize) -> Result<(), OverCredit> {
        let bytes = u32::try_from(bytes).map_err(|_| OverCredit)?;
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or(OverCredit)?;
        Ok(())
    }

    pub(in crate::agent) fn consumed(&mut self, bytes: usize) {
        // Never more than was spent, which is a u32.
        self.owed_bytes += bytes as u32;
    }

    /// What to give back, once it is worth a frame.
    pub(in crate::agent) fn give_back(&mut self) -> Option<u32> {
        if self.owed_bytes < CREDIT_STEP_BYTES {
            return None;
        }
        self.left_bytes += self.owed_bytes;
        Some(std::mem::take(&mut self.owed_bytes))
    }
}

/// Where a process's input goes.
pub(super) enum Sink {
    /// It has none, or reads no more: what comes is thrown away.
    Nowhere,
    Pipe(File),
    Terminal(File),
}

/// Told which stream's bytes the process has taken.
type Consumed<'a> = &'a mut dyn FnMut(u16, usize);

pub(super) struct Input {
    sink: Sink,
    waiting: Vec<u8>,
    taken: usize,
    /// Whose the waiting bytes are, in their order.
    parts: VecDeque<(u16, usize)>,
    ended: bool,
    /// What the terminal has got last.
    last: u8,
}

/// No stream of a host's.
const OURS: u16 = 0;

impl Input {
    /// The sink must not block.
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            waiting: Vec::new(),
            taken: 0,
            parts: VecDeque::new(),
            ended: false,
            last: b'\n',
        }
    }

    /// What to poll for writing, while something waits.
    pub(super) fn fd(&self) -> Option<RawFd> {
        match &self.sink {
            Sink::Pipe(file) | Sink::Terminal(file) if !self.waiting.is_empty() => {
                Some(file.as_raw_fd())
            }
            _ => None,
        }
    }

    pub(super) fn take(&mut self, stream: u16, bytes: &[u8], consumed: Consumed<'_>) {
        if self.ended || matches!(self.sink, Sink::Nowhere) {
            return consumed(stream, bytes.len());
        }
        self.last = *bytes.last().unwrap_or(&self.last);
        self.push(stream, bytes);
        self.go_on(consumed);
    }

    /// The first end is everybody's.
    pub(super) fn end(&mut self, consumed: Consumed<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Sink::Terminal(terminal) = &self.sink {
            let (character, reads_lines) = sys::end_of_file_character(terminal);
            self.push(OURS, &[character]);
            // Behind a line that is not whole, the first one only hands that over.
            if reads_lines && !LINE_ENDERS.contains(&self.last) {
                self.push(OURS, &[character]);
            }
        }
        self.go_on(consumed);
    }

    fn push(&mut self, stream: u16, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        match self.parts.back_mut() {
            Some((last, size)) if *last == stream => *size += bytes.len(),
            _ => self.parts.push_back((stream, bytes.len())),
        }
    }

    /// Writes as much as the process takes now.
    pub(super) fn go_on(&mut self, consumed: Consumed<'_>) {
        while self.taken < self.waiting.len() {
            let (Sink::Pipe(file) | Sink::Terminal(file)) = &mut self.sink else {
                break;
            };
            match file.write(&self.waiting[self.taken..]) {
                Ok(size) => {
                    self.taken += size;
                    pay(&mut self.parts, size, consumed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.taken >= CREDIT_STEP_BYTES as usize {
                        self.waiting.drain(..self.taken);
                        self.taken = 0;
                    }
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No process reads it.
                Err(_) => self.close(consumed),
            }
        }
        self.waiting.clear();
        self.taken = 0;
        if self.ended && matches!(self.sink, Sink::Pipe(_)) {
            self.sink = Sink::Nowhere;
        }
    }

    /// What waits will never be read, and neither will what comes.
    pub(super) fn close(&mut self, consumed: Consumed<'_>) {
        pay(&mut self.parts, self.waiting.len() - self.taken, consumed);
        self.waiting = Vec::new();
        self.taken = 0;
        self.sink = Sink::Nowhere;
    }
}

/// So many bytes of the front were taken.
fn pay(parts: &mut VecDeque<(u16, usize)>, bytes: usize, consumed: Consumed<'_>) {
    let mut left = bytes;
    while let Some((stream, size)) = parts.front_mut() {
        let of_this = left.min(*size);
        consumed(*stream, of_this);
        left -= of_this;
        *size -= of_this;
        if *size > 0 {
            return;
        }
        parts.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (io::PipeReader, File) {
        let (reader, writer) = io::pipe().expect("a pipe");
        sys::set_nonblocking(&writer).expect("a setting of a pipe");
        (reader, File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn credit_comes_back_for_what_was_taken() {
        let (mut reader, writer) = pipe();
        let mut input = Input::new(Sink::Pipe(writer));
        let mut grant = Grant::new();
        for _ in 0..8 {
            grant.spend(32 * 1024).expect("within the credit");
            input.take(1, &[b'x'; 32 * 1024], &mut |_, size| grant.consumed(size));
        }
        // A pipe holds as much as one step.
        assert_eq!(grant.give_back(), Some(64 * 1024));
        assert!(grant.spend(64 * 1024).is_ok());
        assert!(grant.spend(1).is_err(), "beyond the credit");
        let mut taken = vec![0; 64 * 1024];
        reader.read_exact(&mut taken).expect("they are there");
        input.go_on(&mut |_, size| grant.consumed(size));
        assert_eq!(grant.give_back(), Some(64 * 1024));
        assert!(input.fd().is_some());
        drop(reader);
        input.go_on(&mut |_, size| grant.consumed(size));
        assert!(input.fd().is_none());
        assert_eq!(grant.give_back(), Some(128 * 1024), "no process reads it");
    }

    #[test]
    fn each_gets_back_what_was_its_own() {
        let (mut reader, writer) = pipe();
        let mut input = Input::new(Sink::Pipe(writer));
        let mut taken = [0; 3];
        let sent = [(1, 40_000), (2, 30_000), (1, 10_000), (2, 1)];
        for (stream, size) in sent {
            let bytes = vec![stream as u8; size];
            input.take(stream, &bytes, &mut |stream, size| {
                taken[usize::from(stream)] += size
            });
        }
        // A pipe holds 64 KiB, if its pages are full.
        assert_eq!(taken[1], 40_000);
        assert!((20_000..=25_536).contains(&taken[2]), "{taken:?}");
        input.end(&mut |_, _| {});
        let mut got = Vec::new();
        let mut some = vec![0; 4096];
        loop {
            match reader.read(&mut some).expect("it is open, or at its end") {
                0 => break,
                size => got.extend_from_slice(&some[..size]),
            }
            input.go_on(&mut |stream, size| taken[usize::from(stream)] += size);
        }
        assert_eq!(taken, [0, 50_000, 30_001]);
        let expected: Vec<u8> = sent
            .iter()
            .flat_map(|(stream, size)| vec![*stream as u8; *size])
            .collect();
        assert!(got == expected, "in the order in which it came");
    }

    #[test]
    fn behind_the_first_end_all_is_thrown_away() {
        let (mut reader, writer) = pipe();
        let mut input = Input::new(Sink::Pipe(writer));
        let mut thrown = 0;
        input.take(1, b"one", &mut |_, _| {});
        input.end(&mut |_, _| {});
        input.take(2, b"two", &mut |stream, size| {
            assert_eq!(stream, 2);
            thrown += size;
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("it is closed");
        assert_eq!((text.as_str(), thrown), ("one", 3));
    }
}
