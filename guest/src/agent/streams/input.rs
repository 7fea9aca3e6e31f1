//! What the host sends to a command's standard input.
//!
//! The host may send no more than its credit, and gets credit back only for what the command has taken: so no more than
//! that ever waits here.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};

use super::{CREDIT_BYTES, CREDIT_STEP_BYTES};
use crate::sys;

/// Bytes behind which a terminal begins a new line: line ends, and the characters that interrupt, stop, or end a file.
const LINE_ENDERS: [u8; 6] = [b'\n', b'\r', 0x03, 0x04, 0x1a, 0x1c];

/// More was sent than there was credit for.
#[derive(Debug)]
pub(super) struct OverCredit;

/// The credit that the host has for one channel.
pub(super) struct Grant {
    left_bytes: u32,
    owed_bytes: u32,
}

impl Grant {
    pub(super) fn new() -> Self {
        Self {
            left_bytes: CREDIT_BYTES,
            owed_bytes: 0,
        }
    }

    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), OverCredit> {
        let bytes = u32::try_from(bytes).map_err(|_| OverCredit)?;
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or(OverCredit)?;
        Ok(())
    }

    pub(super) fn consumed(&mut self, bytes: usize) {
        // Never more than was spent, which is a u32.
        self.owed_bytes += bytes as u32;
    }

    /// What to give back, once it is worth a frame.
    pub(super) fn give_back(&mut self) -> Option<u32> {
        if self.owed_bytes < CREDIT_STEP_BYTES {
            return None;
        }
        self.left_bytes += self.owed_bytes;
        Some(std::mem::take(&mut self.owed_bytes))
    }
}

/// Where a command's input goes.
pub(super) enum Sink {
    /// It has none, or reads no more: what comes is thrown away.
    Nowhere,
    Pipe(File),
    Terminal(File),
}

pub(super) struct Input {
    sink: Sink,
    waiting: Vec<u8>,
    taken: usize,
    ended: bool,
    /// What the terminal has got last.
    last: u8,
    pub(super) grant: Grant,
}

impl Input {
    /// The sink must not block.
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            waiting: Vec::new(),
            taken: 0,
            ended: false,
            last: b'\n',
            grant: Grant::new(),
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

    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), OverCredit> {
        self.grant.spend(bytes.len())?;
        if self.ended || matches!(self.sink, Sink::Nowhere) {
            self.grant.consumed(bytes.len());
            return Ok(());
        }
        self.last = *bytes.last().unwrap_or(&self.last);
        self.waiting.extend_from_slice(bytes);
        self.go_on();
        Ok(())
    }

    pub(super) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Sink::Terminal(terminal) = &self.sink {
            let (character, reads_lines) = sys::end_of_file_character(terminal);
            self.waiting.push(character);
            // Behind a line that is not whole, the first one only hands that over.
            if reads_lines && !LINE_ENDERS.contains(&self.last) {
                self.waiting.push(character);
            }
        }
        self.go_on();
    }

    /// Writes as much as the command takes now.
    pub(super) fn go_on(&mut self) {
        while self.taken < self.waiting.len() {
            let (Sink::Pipe(file) | Sink::Terminal(file)) = &mut self.sink else {
                break;
            };
            match file.write(&self.waiting[self.taken..]) {
                Ok(size) => {
                    self.taken += size;
                    self.grant.consumed(size);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.taken >= CREDIT_STEP_BYTES as usize {
                        self.waiting.drain(..self.taken);
                        self.taken = 0;
                    }
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody reads it any more.
                Err(_) => self.close(),
            }
        }
        self.waiting.clear();
        self.taken = 0;
        if self.ended && matches!(self.sink, Sink::Pipe(_)) {
            self.sink = Sink::Nowhere;
        }
    }

    /// What waits will never be read, and neither will what comes.
    pub(super) fn close(&mut self) {
        self.grant.consumed(self.waiting.len() - self.taken);
        self.waiting = Vec::new();
        self.taken = 0;
        self.sink = Sink::Nowhere;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn credit_comes_back_for_what_was_taken() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        sys::set_nonblocking(&writer).expect("a setting of a pipe");
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        let mut input = Input::new(Sink::Pipe(writer));
        for _ in 0..8 {
            input.take(&[b'x'; 32 * 1024]).expect("within the credit");
        }
        // A pipe holds as much as one step.
        assert_eq!(input.grant.give_back(), Some(64 * 1024));
        assert!(input.take(&[0; 64 * 1024]).is_ok());
        assert!(input.take(&[0]).is_err(), "beyond the credit");
        let mut taken = vec![0; 64 * 1024];
        reader.read_exact(&mut taken).expect("they are there");
        input.go_on();
        assert_eq!(input.grant.give_back(), Some(64 * 1024));
        assert!(input.fd().is_some());
        drop(reader);
        input.go_on();
        assert!(input.fd().is_none());
        assert_eq!(input.grant.give_back(), Some(192 * 1024), "nobody reads it");
    }

    #[test]
    fn without_a_reader_all_is_thrown_away() {
        let mut input = Input::new(Sink::Nowhere);
        for _ in 0..100 {
            input.take(&[0; 32 * 1024]).expect("credit came back");
            input.grant.give_back();
        }
        input.end();
        assert!(input.take(&[0]).is_ok());
    }
}
