//! A command whose streams go to and come from the host as they are written.
//!
//! ```text
//! running ──ends──► draining: what it had written by then ──all sent──► RESULT
//!    └──CANCEL──► killed ──ends──► RESULT: what was not sent is dropped
//!    └──deadline──► killed ──ends──► draining ...
//! ```
//!
//! A channel without credit is not read: then its pipe is full at some time, and the command waits.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Instant;

use super::frame::{PAYLOAD_MAX_BYTES, kind};
use super::input::{Input, OverCredit, Sink};
use super::out::Out;
use super::{CREDIT_BYTES, ENTRIES, STDERR, STDOUT, Step};
use crate::agent::orders::StreamOrder;
use crate::agent::process::{Process, poll_entry};
use crate::command::{SpawnError, Streams};
use crate::json::Object;
use crate::sys::{self, Ended, WindowSize};

/// What a terminal may hold of what was written to it; behind that, somebody who stayed in the background writes.
const TERMINAL_HOLDS_BYTES: usize = 128 * 1024;

/// One channel of what the command writes.
struct Output {
    channel: u8,
    /// `None` once it is at its end, which the host knows.
    file: Option<File>,
    credit_bytes: u64,
    /// What is still of interest, once the command has ended.
    left_bytes: Option<usize>,
}

pub(super) struct Exec {
    process: Process,
    input: Input,
    outputs: [Output; 2],
    /// Our end of its terminal.
    terminal: Option<File>,
    ended: Option<Ended>,
    cancelled: bool,
}

impl Exec {
    pub(super) fn start(order: StreamOrder, nowhere: &File) -> Result<Self, SpawnError> {
        match order.window {
            Some(window) => Self::on_terminal(order, window, nowhere),
            None => Self::on_pipes(order, nowhere),
        }
    }

    fn on_pipes(order: StreamOrder, nowhere: &File) -> Result<Self, SpawnError> {
        let pipes = |error: io::Error| SpawnError::new("make a pipe: ", &error);
        let (stdout, out_end) = sys::pipe().map_err(pipes)?;
        let (stderr, err_end) = sys::pipe().map_err(pipes)?;
        let (in_end, sink) = match order.stdin {
            false => (None, Sink::Nowhere),
            true => {
                let (theirs, ours) = sys::pipe().map_err(pipes)?;
                sys::set_nonblocking(&ours).map_err(pipes)?;
                (Some(theirs), Sink::Pipe(ours.into()))
            }
        };
        let streams = Streams {
            stdin: in_end.as_ref().map_or(nowhere.as_fd(), OwnedFd::as_fd),
            stdout: out_end.as_fd(),
            stderr: err_end.as_fd(),
        };
        let process = Process::start(order.program, &streams, order.timeout)?;
        Ok(Self::new(
            process,
            sink,
            [Some(stdout.into()), Some(stderr.into())],
        ))
    }

    fn on_terminal(
        order: StreamOrder,
        window: WindowSize,
        nowhere: &File,
    ) -> Result<Self, SpawnError> {
        let failed = |error: io::Error| SpawnError::new("open a terminal: ", &error);
        let (ours, theirs) = sys::open_terminal(window).map_err(failed)?;
        let sink = match order.stdin {
            true => Sink::Terminal(ours.try_clone().map_err(failed)?),
            false => Sink::Nowhere,
        };
        let output = ours.try_clone().map_err(failed)?;
        let theirs = theirs.as_fd();
        let streams = Streams {
            stdin: if order.stdin { theirs } else { nowhere.as_fd() },
            stdout: theirs,
            stderr: theirs,
        };
        let program = order.program.on_a_terminal();
        let process = Process::start(program, &streams, order.timeout)?;
        let mut exec = Self::new(process, sink, [Some(output), None]);
        exec.terminal = Some(ours);
        Ok(exec)
    }

    fn new(process: Process, sink: Sink, [stdout, stderr]: [Option<File>; 2]) -> Self {
        let output = |channel, file| Output {
            channel,
            file,
            credit_bytes: CREDIT_BYTES.into(),
            left_bytes: None,
        };
        Self {
            process,
            input: Input::new(sink),
            outputs: [output(STDOUT, stdout), output(STDERR, stderr)],
            terminal: None,
            ended: None,
            cancelled: false,
        }
    }

    /// Its end, its outputs, its input.
    pub(super) fn poll_entries(&self, room: bool) -> [libc::pollfd; ENTRIES] {
        let end = match self.ended {
            None => self.process.poll_entry(),
            Some(_) => poll_entry(None, 0),
        };
        let output = |output: &Output| {
            let wanted = room && output.credit_bytes > 0;
            let file = output.file.as_ref().filter(|_| wanted);
            poll_entry(file.map(|file| file.as_raw_fd()), libc::POLLIN)
        };
        let [stdout, stderr] = &self.outputs;
        let input = poll_entry(self.input.fd(), libc::POLLOUT);
        [end, output(stdout), output(stderr), input]
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.process.deadline().filter(|_| self.ended.is_none())
    }

    /// Whether it has something to send that no descriptor tells of.
    pub(super) fn wants_turn(&self) -> bool {
        let waits = |output: &Output| output.file.is_some() && output.credit_bytes > 0;
        self.ended.is_some() && self.outputs.iter().any(waits)
    }

    /// Does what the entries call for; without them, what can be done in any case.
    pub(super) fn attend(
        &mut self,
        id: u16,
        entries: Option<&[libc::pollfd]>,
        out: &mut Out,
    ) -> Step {
        let ready = |place: usize| entries.is_some_and(|entries| entries[place].revents != 0);
        if ready(3) {
            self.input.go_on();
        }
        let draining = self.ended.is_some();
        for (output, place) in self.outputs.iter_mut().zip(1..) {
            if draining || ready(place) {
                output.pass(id, out);
            }
        }
        if ready(0) && !draining {
            self.ended = self.process.reap();
            if self.ended.is_some() {
                self.input.close();
                for output in &mut self.outputs {
                    output.leave(self.terminal.is_some());
                    output.pass(id, out);
                }
            }
        }
        self.step()
    }

    /// Kills it at its deadline.
    pub(super) fn look_at_clock(&mut self, now: Instant) -> Step {
        if self.ended.is_none() && self.process.look_at_clock(now) {
            return Step::Done(self.result());
        }
        Step::GoOn
    }

    fn step(&self) -> Step {
        let all_sent = self.outputs.iter().all(|output| output.file.is_none());
        if self.ended.is_some() && (all_sent || self.cancelled) {
            Step::Done(self.result())
        } else {
            Step::GoOn
        }
    }

    fn result(&self) -> String {
        let (exit_code, signal) = match self.ended {
            Some(Ended::Exited(code)) => (Some(code), None),
            Some(Ended::Signalled(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        Object::new()
            .number_or_null("exit_code", exit_code)
            .number_or_null("signal", signal)
            .flag("timed_out", self.process.timed_out())
            .json("spawn_error", "null")
            .end()
    }

    pub(super) fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), OverCredit> {
        self.input.take(bytes)
    }

    pub(super) fn credit(&mut self, channel: u8, bytes: u32) {
        for output in &mut self.outputs {
            if output.channel == channel {
                output.credit_bytes = output.credit_bytes.saturating_add(bytes.into());
            }
        }
    }

    pub(super) fn resize(&self, window: WindowSize) {
        if let Some(terminal) = &self.terminal {
            // It can only fail for what is no terminal.
            let _ = sys::resize_terminal(terminal, window);
        }
    }

    pub(super) fn cancel(&mut self, now: Instant) -> Step {
        self.cancelled = true;
        if self.ended.is_none() {
            self.process.kill(now);
        }
        self.step()
    }

    /// The process, where it was not waited for yet.
    pub(super) fn into_process(self) -> Option<Process> {
        self.ended.is_none().then_some(self.process)
    }
}

impl Output {
    /// Sends what one read gives.
    fn pass(&mut self, id: u16, out: &mut Out) {
        let Some(file) = &mut self.file else {
            return;
        };
        if self.left_bytes == Some(0) {
            return self.end(id, out);
        }
        if self.credit_bytes == 0 || !out.has_room() {
            return;
        }
        let credit_bytes = usize::try_from(self.credit_bytes).unwrap_or(usize::MAX);
        let most = self
            .left_bytes
            .unwrap_or(PAYLOAD_MAX_BYTES)
            .min(credit_bytes);
        match out.data(id, self.channel, most, |room| file.read(room)) {
            Ok(0) => self.end(id, out),
            Ok(size) => {
                self.credit_bytes -= size as u64;
                self.left_bytes = self.left_bytes.map(|left| left - size);
                if self.left_bytes == Some(0) {
                    self.end(id, out);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal that somebody in the background has kept: nothing more is of interest.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && self.left_bytes.is_none() => {}
            // A terminal that nobody has open any more says so with an error.
            Err(_) => self.end(id, out),
        }
    }

    /// The command has ended: what comes later is not its own.
    fn leave(&mut self, is_terminal: bool) {
        self.left_bytes = self.file.as_ref().map(|file| match is_terminal {
            // It does not tell how much it holds.
            true => TERMINAL_HOLDS_BYTES,
            false => sys::readable_bytes(file).unwrap_or(0),
        });
    }

    fn end(&mut self, id: u16, out: &mut Out) {
        self.file = None;
        out.frame(id, kind::END, self.channel, b"");
    }
}
