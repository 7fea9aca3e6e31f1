//! One process: what runs, who is attached, how it ends.
//!
//! ```text
//! running ──ends──────────────────► ended: what it had written by then goes to those that are attached
//!    └──deadline, or killed──► killed ──ends─► ended
//!                                └──patience─► given up: its stream is told, and it is waited for all the same
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use vmint_guest_protocol::KILL_PATIENCE;
use vmint_guest_protocol::names::ended_by;

use super::descendants::{self, Born};
use super::groups::{Group, Groups};
use super::input::{Grant, Input, Sink};
use super::output::{Output, Reader};
use super::record::{Draft, Fate, Now, Record};
use super::start::start;
use crate::agent::order::Order;
use crate::agent::out::Out;
use crate::agent::poll_entry;
use crate::agent::refusal::Refusal;
use crate::command::SpawnError;
use crate::json;
use crate::sys::{self, WindowSize};

/// Descriptors that a process may have to be polled for: its end, its outputs, its input.
pub(super) const ENTRIES: usize = 4;

pub(super) struct Process {
    pid: libc::pid_t,
    /// Readable once the process has ended. `None`: it was waited for, or an agent before this one has lost it.
    end: Option<OwnedFd>,
    group: Option<Group>,
    /// How an agent after this one knows it, where there are no groups.
    born: Option<Born>,
    /// The time to kill it, and once that was done, the time to give up on it.
    deadline: Option<Instant>,
    /// Why it was killed, if it was.
    killed: Option<&'static str>,
    input: Input,
    outputs: [Output; 2],
    /// The other ends of its outputs' pipes, until it has ended. While they are open here, too, the end of what it writes
    /// does not wake us twice before its own, with which it is told.
    held: Option<[OwnedFd; 2]>,
    /// Our end of its terminal.
    terminal: Option<File>,
    readers: Vec<Reader>,
    fate: Option<Fate>,
    /// Of one that was started to be listed.
    pub(super) record: Option<Record>,
    pub(super) is_listed: bool,
}

impl Process {
    pub(super) fn start(
        order: Order,
        keep: bool,
        nowhere: &File,
        groups: &mut Groups,
    ) -> Result<Self, SpawnError> {
        let timeout = order.timeout;
        let group = groups.take();
        let (pid, end, ends) = match start(order, nowhere, group.as_ref(), groups) {
            Ok(started) => started,
            Err(error) => {
                if let Some(group) = group {
                    groups.give_back(group);
                }
                return Err(error);
            }
        };
        let [stdout, stderr] = ends.outputs;
        Ok(Self {
            pid,
            end: Some(end),
            born: (!groups.are_there()).then(|| Born::of(pid)).flatten(),
            group,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            killed: None,
            input: Input::new(ends.sink),
            outputs: [Output::new(0, stdout, keep), Output::new(1, stderr, keep)],
            held: ends.theirs,
            terminal: ends.terminal,
            readers: Vec::new(),
            fate: None,
            record: None,
            is_listed: false,
        })
    }

    /// One that an agent before this one knew: nothing of it is there but its record.
    pub(super) fn of_record(record: Record) -> Self {
        Self {
            pid: 0,
            end: None,
            group: None,
            born: None,
            deadline: None,
            killed: None,
            input: Input::new(Sink::Nowhere),
            outputs: [Output::new(0, None, false), Output::new(1, None, false)],
            held: None,
            terminal: None,
            readers: Vec::new(),
            fate: record.fate(),
            record: Some(record),
            is_listed: true,
        }
    }

    pub(super) fn list(&mut self, draft: Draft, number: u64, now_ms: i64) {
        self.record = Some(draft.started(number, self.pid, now_ms));
        self.is_listed = true;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.fate.is_some()
    }

    /// One that runs, and that an agent after this one could know by nothing else.
    pub(super) fn born(&self) -> Option<Born> {
        self.born.filter(|_| !self.has_ended())
    }

    /// Nothing of it is of interest to anybody.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended() && !self.is_listed && self.readers.is_empty()
    }

    pub(super) fn readers(&self) -> &[Reader] {
        &self.readers
    }

    pub(super) fn has_reader(&self, stream: u16) -> bool {
        self.readers.iter().any(|reader| reader.stream == stream)
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.outputs.iter().map(Output::kept_bytes).sum()
    }

    /// Forgets the oldest of what is kept, at least so much if there is so much.
    pub(super) fn forget_kept(&mut self, bytes: usize) {
        let mut left = bytes;
        for output in &mut self.outputs {
            let before = output.kept_bytes();
            if left > 0 && before > 0 {
                output.forget(left);
                left = left.saturating_sub(before - output.kept_bytes());
            }
        }
    }

    /// What the host is told of it, if it was started to be listed.
    pub(super) fn describe(&self) -> Option<Record> {
        let lost = self.pid == 0;
        let now = Now {
            attached: self.readers.len(),
            kept_bytes: self.kept_bytes(),
            truncated: lost || self.outputs.iter().any(Output::is_truncated),
        };
        self.record.as_ref().map(|record| record.at(&now))
    }

    pub(super) fn poll_entries(&self, room: bool) -> [libc::pollfd; ENTRIES] {
        let end = self.end.as_ref().map(|end| end.as_raw_fd());
        let [stdout, stderr] = &self.outputs;
        // Once it has ended, what is left of its output is read in turns.
        let output = |output: &Output| match self.has_ended() {
            true => poll_entry(None, 0),
            false => poll_entry(output.fd(room, &self.readers), libc::POLLIN),
        };
        [
            poll_entry(end, libc::POLLIN),
            output(stdout),
            output(stderr),
            poll_entry(self.input.fd(), libc::POLLOUT),
        ]
    }

    /// When to look at the clock for it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let pauses = self.outputs.iter().filter_map(Output::paused_until);
        let first = self.deadline.into_iter().chain(pauses).min();
        first.filter(|_| !self.has_ended())
    }

    /// Whether it has something to send that no descriptor tells of.
    pub(super) fn wants_turn(&self) -> bool {
        let mut outputs = self.outputs.iter();
        outputs.any(|output| output.wants_turn(&self.readers))
    }

    /// Does what the entries call for; without them, what can be done in any case. True when something was kept.
    pub(super) fn attend(
        &mut self,
        entries: Option<&[libc::pollfd]>,
        groups: &mut Groups,
        out: &mut Out,
    ) -> bool {
        let ready = |place: usize| entries.is_some_and(|entries| entries[place].revents != 0);
        if ready(3) {
            self.with_input(|input, consumed| input.go_on(consumed));
        }
        let was_ended = self.has_ended();
        let mut kept = false;
        for (place, output) in self.outputs.iter_mut().enumerate() {
            output.replay(&mut self.readers, out);
            if was_ended || ready(place + 1) {
                kept |= output.read(&mut self.readers, out);
            }
        }
        if ready(0) {
            kept |= self.reap(groups, out);
        }
        self.settle(out);
        kept
    }

    /// Says what follows from what has happened: ends, credit, the `RESULT` of streams that have come to theirs.
    pub(super) fn settle(&mut self, out: &mut Out) {
        for output in &self.outputs {
            output.end(&mut self.readers, out);
        }
        for reader in &mut self.readers {
            if let Some(bytes) = reader.grant.give_back() {
                out.credit(reader.stream, bytes);
            }
        }
        self.finish(out);
    }

    fn reap(&mut self, groups: &mut Groups, out: &mut Out) -> bool {
        let Some(ended) = sys::reap_child(self.pid) else {
            return false;
        };
        self.end = None;
        self.held = None;
        let fate = Fate::of(ended, self.killed);
        if let Some(record) = &mut self.record {
            record.end(&fate, sys::clock_realtime_ns() / 1_000_000);
        }
        self.fate = Some(fate);
        if let Some(group) = self.group.take() {
            groups.give_back(group);
        }
        self.with_input(|input, consumed| input.close(consumed));
        let is_terminal = self.terminal.is_some();
        for output in &mut self.outputs {
            output.leave(is_terminal);
        }
        self.drain(out)
    }

    /// What it has written by its end is read now, as far as those that are attached have credit: to the end without any.
    fn drain(&mut self, out: &mut Out) -> bool {
        let mut kept = false;
        for output in &mut self.outputs {
            let is_alone = self.readers.is_empty();
            kept |= output.read(&mut self.readers, out);
            while is_alone && self.fate.is_some() && !output.is_at_end() {
                kept |= output.read(&mut self.readers, out);
            }
        }
        kept
    }

    /// Kills it at its deadline, and gives up on it when it does not end. Reads its outputs on after a pause.
    pub(super) fn look_at_clock(&mut self, now: Instant, out: &mut Out) {
        for output in &mut self.outputs {
            output.resume(now);
        }
        if self.has_ended() || self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let Some(by) = self.killed else {
            return self.kill(ended_by::TIMEOUT, now);
        };
        self.deadline = None;
        let result = json::text(&Fate::unseen(by));
        self.readers.retain(|reader| {
            if reader.owns {
                out.result(reader.stream, &result);
            }
            !reader.owns
        });
    }

    /// Kills it with all that descends from it, once.
    pub(super) fn kill(&mut self, by: &'static str, now: Instant) {
        if self.killed.is_some() || self.end.is_none() {
            return;
        }
        let killed = self.group.as_ref().map(Group::kill);
        match killed {
            Some(Ok(())) => {
                // The guest's root may have taken it out of its group. That it is gone already is fine.
                let _ = sys::signal(self.pid, libc::SIGKILL);
            }
            Some(Err(_)) | None => descendants::kill_with_descendants(self.pid),
        }
        self.killed = Some(by);
        self.deadline = now.checked_add(KILL_PATIENCE);
    }

    /// Any signal to the process itself.
    pub(super) fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        sys::signal(self.pid, signal)
    }

    pub(super) fn attach(&mut self, stream: u16, owns: bool, replay: bool, follow: bool) {
        let [stdout, stderr] = &self.outputs;
        self.readers.push(Reader {
            stream,
            owns,
            grant: Grant::new(),
            readings: [
                stdout.reading(replay, follow),
                stderr.reading(replay, follow),
            ],
        });
    }

    /// Leaves it; true when it belonged to the stream.
    pub(super) fn detach(&mut self, stream: u16, out: &mut Out) -> bool {
        let place = self.readers.iter().position(|it| it.stream == stream);
        let owned = place.is_some_and(|place| self.readers.remove(place).owns);
        if self.has_ended() {
            self.drain(out);
        }
        owned
    }

    /// The connection is over: what belongs to it ends.
    pub(super) fn lose_connection(&mut self, now: Instant, out: &mut Out) {
        let owned = self.readers.iter().any(|reader| reader.owns);
        self.readers.clear();
        if owned {
            self.abandon(now);
        } else if self.has_ended() {
            self.drain(out);
        }
    }

    /// Its stream is gone, and it goes too.
    pub(super) fn abandon(&mut self, now: Instant) {
        self.kill(ended_by::KILLED, now);
        self.outputs.iter_mut().for_each(Output::close);
        self.with_input(|input, consumed| input.close(consumed));
    }

    /// Streams that have come to their end are attached no more.
    fn finish(&mut self, out: &mut Out) {
        let is_done = |reader: &Reader| {
            let are_ended = reader.readings.iter().all(|reading| reading.has_ended());
            let follows = reader.readings.iter().any(|reading| reading.is_live());
            are_ended && (self.fate.is_some() || !follows)
        };
        if !self.readers.iter().any(is_done) {
            return;
        }
        let (done, going_on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.readers)
            .into_iter()
            .partition(is_done);
        self.readers = going_on;
        for reader in done {
            self.say_result(&reader, out);
        }
    }

    /// `CANCEL`: its own process is killed and has its `RESULT` when it has ended; others are left.
    pub(super) fn cancel(&mut self, stream: u16, now: Instant, out: &mut Out) {
        let Some(place) = self.readers.iter().position(|it| it.stream == stream) else {
            return;
        };
        if self.readers[place].owns {
            self.kill(ended_by::KILLED, now);
            self.outputs.iter_mut().for_each(Output::close);
        } else {
            let reader = self.readers.remove(place);
            if self.has_ended() {
                self.drain(out);
            }
            self.say_result(&reader, out);
        }
    }

    fn say_result(&self, reader: &Reader, out: &mut Out) {
        let text = match (&self.fate, reader.owns) {
            (Some(fate), true) => json::text(fate),
            _ => json::text(&self.describe()),
        };
        out.result(reader.stream, &text);
    }

    /// What a stream sends to standard input.
    pub(super) fn take_input(&mut self, stream: u16, bytes: &[u8]) -> Result<(), Refusal> {
        let reader = self.readers.iter_mut().find(|it| it.stream == stream);
        if let Some(reader) = reader {
            let spent = reader.grant.spend(bytes.len());
            spent.map_err(|_| Refusal::over_credit())?;
            self.with_input(|input, consumed| input.take(stream, bytes, consumed));
        }
        Ok(())
    }

    pub(super) fn end_input(&mut self) {
        self.with_input(|input, consumed| input.end(consumed));
    }

    pub(super) fn credit(&mut self, stream: u16, place: usize, bytes: u32) {
        let reader = self.readers.iter_mut().find(|it| it.stream == stream);
        if let Some(reading) = reader.and_then(|reader| reader.readings.get_mut(place)) {
            reading.credit_bytes = reading.credit_bytes.saturating_add(bytes.into());
        }
    }

    pub(super) fn resize(&self, window: WindowSize) {
        if let Some(terminal) = &self.terminal {
            // It can only fail for what is no terminal.
            let _ = sys::resize_terminal(terminal, window);
        }
    }

    /// With what gives credit back to those whose bytes were taken.
    fn with_input(&mut self, act: impl FnOnce(&mut Input, &mut dyn FnMut(u16, usize))) {
        let Self { input, readers, .. } = self;
        act(input, &mut |stream, size| {
            let reader = readers.iter_mut().find(|it| it.stream == stream);
            if let Some(reader) = reader {
                reader.grant.consumed(size);
            }
        });
    }
}
