//! One stream of what a process writes: to those that are attached, and to what is kept.
//!
//! It is read as fast as the slowest that is attached has credit, and freely while none is. One that asked for what was
//! kept counts as attached from then on, and gets that first: so nothing is read that it would miss.
//!
//! A program that writes much in small pieces would wake us for each of them, which costs far more than to read it. So
//! after a few short reads of a pipe, it is left alone for a moment after each further one, and has room to write on.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use vmint_guest_protocol::frame::PAYLOAD_MAX_BYTES;
use vmint_guest_protocol::{WINDOW_BYTES, channel};

use super::input::Grant;
use super::kept::Kept;
use crate::agent::out::{Out, ROOM_BYTES};
use crate::sys;

/// What a terminal may hold of what was written to it; behind that, a program that stayed in the background writes.
const TERMINAL_HOLDS_BYTES: usize = 128 * 1024;
/// However many are attached, each gets at least so much at a time.
const SHARE_MIN_BYTES: usize = 512;

/// A read that is worth its frame.
const LONG_BYTES: usize = PAYLOAD_MAX_BYTES / 2;
/// Short reads before there are pauses: most programs have fewer, and the clock is not read for those.
const SHORT_READS: u32 = 8;
/// What a person does not notice, and a program under emulation fills a pipe in.
const PAUSE: Duration = Duration::from_millis(2);
/// Room for what a fast program writes in a pause.
const WIDE_PIPE_BYTES: usize = 256 * 1024;

/// How far one stream that is attached has come with one output.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) credit_bytes: u64,
    /// Of all that was written, the place that it has got to.
    next: u64,
    /// Where it ends. `None`: where the output does.
    until: Option<u64>,
    /// The host knows the end.
    has_ended: bool,
}

impl Reading {
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended || self.until.is_some_and(|until| self.next >= until)
    }

    /// It gets what is read from now on.
    pub(super) fn is_live(&self) -> bool {
        self.until.is_none()
    }
}

/// One stream that is attached to a process.
pub(super) struct Reader {
    pub(super) stream: u16,
    /// The process belongs to it, and goes with it.
    pub(super) owns: bool,
    /// What it may send to standard input.
    pub(super) grant: Grant,
    pub(super) readings: [Reading; 2],
}

pub(super) struct Output {
    /// Among the outputs of its process.
    place: usize,
    /// `None`: it is at its end.
    file: Option<File>,
    /// A process on a terminal has no standard error.
    exists: bool,
    kept: Option<Kept>,
    /// All that was read of it.
    total_bytes: u64,
    /// What is still of interest, once the process has ended.
    left_bytes: Option<usize>,
    short_reads: u32,
    /// It is a pipe, and is read in pauses.
    is_paced: bool,
    paused_until: Option<Instant>,
}

impl Output {
    pub(super) fn new(place: usize, file: Option<File>, keep: bool) -> Self {
        Self {
            place,
            exists: file.is_some(),
            file,
            kept: keep.then(Kept::default),
            total_bytes: 0,
            left_bytes: None,
            short_reads: 0,
            is_paced: false,
            paused_until: None,
        }
    }

    fn channel(&self) -> u8 {
        match self.place {
            0 => channel::OUTPUT,
            _ => channel::ERROR,
        }
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, Kept::len)
    }

    /// The beginning of what is kept is not that of what was written.
    pub(super) fn is_truncated(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.start() > 0)
    }

    /// Forgets so many of the oldest kept bytes, and some more.
    pub(super) fn forget(&mut self, bytes: usize) {
        if let Some(kept) = &mut self.kept {
            kept.forget(bytes);
        }
    }

    fn kept_start(&self) -> u64 {
        self.kept
            .as_ref()
            .map_or(self.total_bytes, |kept| kept.start())
    }

    /// How a stream begins with it.
    pub(super) fn reading(&self, replay: bool, follow: bool) -> Reading {
        Reading {
            credit_bytes: WINDOW_BYTES.into(),
            next: match replay {
                true => self.kept_start(),
                false => self.total_bytes,
            },
            until: (!follow).then_some(self.total_bytes),
            has_ended: !self.exists,
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.file.is_none()
    }

    /// What to poll for reading, while it may be read.
    pub(super) fn fd(&self, room: bool, readers: &[Reader]) -> Option<RawFd> {
        let file = self.file.as_ref()?;
        if self.paused_until.is_some() {
            return None;
        }
        self.allowance(room, readers).map(|_| file.as_raw_fd())
    }

    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Ends a pause that is over.
    pub(super) fn resume(&mut self, now: Instant) {
        self.paused_until = self.paused_until.filter(|until| now < *until);
    }

    /// Begins a pause after a short read, if there were many.
    fn pace(&mut self, size: usize) {
        if size >= LONG_BYTES {
            return;
        }
        self.short_reads = self.short_reads.saturating_add(1);
        if let (SHORT_READS, Some(file)) = (self.short_reads, &self.file) {
            self.is_paced = sys::widen_pipe(file, WIDE_PIPE_BYTES);
        }
        if self.is_paced {
            self.paused_until = Instant::now().checked_add(PAUSE);
        }
    }

    fn live<'a>(&self, readers: &'a [Reader]) -> impl Iterator<Item = &'a Reader> {
        let place = self.place;
        readers
            .iter()
            .filter(move |reader| reader.readings[place].is_live())
    }

    /// Most that may be read now. `None`: nothing, for want of credit or room.
    fn allowance(&self, room: bool, readers: &[Reader]) -> Option<usize> {
        let (mut most, mut count) = (u64::MAX, 0);
        for reader in self.live(readers) {
            let reading = &reader.readings[self.place];
            if reading.next != self.total_bytes {
                return None;
            }
            most = most.min(reading.credit_bytes);
            count += 1;
        }
        if most == 0 || (count > 0 && !room) {
            return None;
        }
        let share = match count {
            0 | 1 => PAYLOAD_MAX_BYTES,
            _ => (ROOM_BYTES / count).clamp(SHARE_MIN_BYTES, PAYLOAD_MAX_BYTES),
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Some(most.min(share))
    }

    /// Whether there is something to send that no descriptor tells of: kept bytes for one that is not up with the process,
    /// or what the process has written before its end.
    pub(super) fn wants_turn(&self, readers: &[Reader]) -> bool {
        let is_left = self.left_bytes.is_some() && self.file.is_some();
        let mut readings = readers.iter().map(|reader| &reader.readings[self.place]);
        readings.any(|reading| self.is_behind(reading))
            || (is_left && self.allowance(true, readers).is_some())
    }

    fn is_behind(&self, reading: &Reading) -> bool {
        let end = reading.until.unwrap_or(self.total_bytes);
        reading.next < end && reading.credit_bytes > 0
    }

    /// Sends one frame of what was kept to each that is not up with the process.
    pub(super) fn replay(&self, readers: &mut [Reader], out: &mut Out) {
        let Some(kept) = &self.kept else {
            return;
        };
        for reader in readers {
            let reading = &mut reader.readings[self.place];
            reading.next = reading.next.max(kept.start());
            if !self.is_behind(reading) || !out.has_room() {
                continue;
            }
            let end = reading.until.unwrap_or(self.total_bytes);
            let most = (end - reading.next).min(reading.credit_bytes);
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let place = reading.next;
            let copied = out.data(reader.stream, self.channel(), most, |room| {
                Ok(kept.copy_from(place, room))
            });
            let size = copied.unwrap_or(0) as u64;
            reading.next += size;
            reading.credit_bytes -= size;
        }
    }

    /// Reads once, and passes on what that gives. True when something was kept.
    pub(super) fn read(&mut self, readers: &mut [Reader], out: &mut Out) -> bool {
        let Some(most) = self.allowance(out.has_room(), readers) else {
            return false;
        };
        let most = most.min(self.left_bytes.unwrap_or(most));
        let first = self.live(readers).next().map(|reader| reader.stream);
        let channel = self.channel();
        let Some(file) = &mut self.file else {
            return false;
        };
        let got = match first {
            None => file.read(&mut out.scratch()[..most]),
            Some(stream) => out.data(stream, channel, most, |room| file.read(room)),
        };
        match got {
            Ok(0) => self.file = None,
            Ok(size) => {
                self.pace(size);
                return self.pass_on(size, first.is_some(), readers, out);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Behind its process's end: another program has kept the terminal, or has read from the pipe.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && self.left_bytes.is_none() => {}
            // A terminal that no program has open says so with an error.
            Err(_) => self.file = None,
        }
        false
    }

    /// The first that is attached has its frame; the others get the same, and so does what is kept.
    fn pass_on(
        &mut self,
        size: usize,
        is_sent: bool,
        readers: &mut [Reader],
        out: &mut Out,
    ) -> bool {
        self.left_bytes = self.left_bytes.map(|left| left - size);
        if self.left_bytes == Some(0) {
            self.file = None;
        }
        self.total_bytes += size as u64;
        if let Some(kept) = &mut self.kept {
            kept.append(match is_sent {
                true => out.last_payload(size),
                false => &out.scratch()[..size],
            });
        }
        let (channel, mut is_first) = (self.channel(), true);
        for reader in readers {
            let reading = &mut reader.readings[self.place];
            if !reading.is_live() {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                out.repeat_data(reader.stream, channel, size);
            }
            reading.next = self.total_bytes;
            reading.credit_bytes -= size as u64;
        }
        self.kept.is_some()
    }

    /// The process has ended: what comes later is not its own.
    pub(super) fn leave(&mut self, is_terminal: bool) {
        self.left_bytes = self.file.as_ref().map(|file| match is_terminal {
            // It does not tell how much it holds.
            true => TERMINAL_HOLDS_BYTES,
            false => sys::readable_bytes(file).unwrap_or(0),
        });
        if self.left_bytes == Some(0) {
            self.file = None;
        }
    }

    /// Nothing of it is of interest.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Says the end to those that have got to it.
    pub(super) fn end(&self, readers: &mut [Reader], out: &mut Out) {
        if self.file.is_some() {
            return;
        }
        for reader in readers {
            let reading = &mut reader.readings[self.place];
            let is_there = reading.is_live() && reading.next >= self.total_bytes;
            if is_there && !reading.has_ended {
                reading.has_ended = true;
                out.end(reader.stream, self.channel());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use super::super::start::readable_pipe;
    use super::*;

    /// The pipe stays open on its other side, as by a program in the background.
    #[test]
    fn another_program_that_reads_what_is_left_holds_nothing() {
        let (ours, theirs) = readable_pipe().expect("a pipe");
        let mut thief = File::open(format!("/proc/self/fd/{}", ours.as_raw_fd())).expect("a pipe");
        let mut writer = File::from(theirs);
        writer.write_all(b"0123456789").expect("room in the pipe");
        let (mut output, mut out) = (Output::new(0, Some(ours), true), Out::new());
        output.leave(false);
        assert_eq!(output.left_bytes, Some(10));
        thief.read_exact(&mut [0; 4]).expect("they are there");
        assert!(output.read(&mut [], &mut out));
        assert!(!output.is_at_end());
        assert!(!output.read(&mut [], &mut out), "there is no more");
        assert!(output.is_at_end());
        assert_eq!(output.kept_bytes(), 6);
    }

    #[test]
    fn many_small_pieces_are_read_in_pauses() {
        let (ours, theirs) = readable_pipe().expect("a pipe");
        let mut writer = File::from(theirs);
        let (mut output, mut out) = (Output::new(0, Some(ours), true), Out::new());
        for _ in 0..SHORT_READS {
            assert!(output.fd(true, &[]).is_some() && output.paused_until().is_none());
            writer.write_all(b"0123456789").expect("room in the pipe");
            assert!(output.read(&mut [], &mut out));
        }
        let until = output.paused_until().expect("a pause");
        assert!(output.fd(true, &[]).is_none());
        writer
            .write_all(&[1; WIDE_PIPE_BYTES / 2])
            .expect("more room than a pipe has");
        output.resume(until - PAUSE / 2);
        assert!(output.fd(true, &[]).is_none(), "it is not over");
        output.resume(until);
        while output.total_bytes < u64::from(SHORT_READS) * 10 + WIDE_PIPE_BYTES as u64 / 2 {
            assert!(output.fd(true, &[]).is_some(), "long reads need no pause");
            assert!(output.read(&mut [], &mut out));
        }
    }

    #[test]
    fn a_terminal_is_read_without_pauses() {
        use std::os::fd::AsFd as _;
        let window = sys::WindowSize {
            rows: 24,
            columns: 80,
        };
        let (mut ours, _theirs) = sys::open_terminal(window).expect("a terminal");
        let file = ours.try_clone().expect("a copy");
        let (mut output, mut out) = (Output::new(0, Some(file), true), Out::new());
        for _ in 0..2 * SHORT_READS {
            ours.write_all(b"x\n").expect("it is echoed");
            sys::poll_readable([ours.as_fd()], None).expect("the echo");
            assert!(output.read(&mut [], &mut out));
            assert!(output.fd(true, &[]).is_some());
        }
    }

    #[test]
    fn nothing_is_read_before_what_was_kept_is_sent() {
        const KEPT_BYTES: u64 = 40_000;
        let (ours, theirs) = readable_pipe().expect("a pipe");
        let mut writer = File::from(theirs);
        let (mut output, mut out) = (Output::new(0, Some(ours), true), Out::new());
        writer
            .write_all(&[1; KEPT_BYTES as usize])
            .expect("room in the pipe");
        while output.total_bytes < KEPT_BYTES {
            assert!(output.read(&mut [], &mut out));
        }
        writer.write_all(b"abc").expect("room in the pipe");
        let mut readers = [Reader {
            stream: 1,
            owns: false,
            grant: Grant::new(),
            readings: [output.reading(true, true), output.reading(true, true)],
        }];
        // A frame's worth, the rest of what was kept, and what came since.
        for (sent_bytes, read_bytes) in [
            (PAYLOAD_MAX_BYTES as u64, KEPT_BYTES),
            (KEPT_BYTES + 3, KEPT_BYTES + 3),
        ] {
            assert!(output.wants_turn(&readers));
            output.replay(&mut readers, &mut out);
            output.read(&mut readers, &mut out);
            assert_eq!(readers[0].readings[0].next, sent_bytes);
            assert_eq!(output.total_bytes, read_bytes);
        }
        assert!(!output.wants_turn(&readers));
    }
}
