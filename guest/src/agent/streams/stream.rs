//! One stream: whatever it is, frames go in and frames come out.
//!
//! What ends a stream returns its process, where that was not waited for: the caller kills it, and waits.

use std::fs::File;
use std::time::Instant;

use super::exec::Exec;
use super::files::{Read, Write};
use super::frame::{Frame, kind};
use super::open::Open;
use super::out::Out;
use super::{ENTRIES, STDIN, Step, Trouble};
use crate::agent::process::{Process, poll_entry};
use crate::command::SpawnError;
use crate::json::Object;
use crate::sys::WindowSize;

enum Work {
    Exec(Box<Exec>),
    Write(Write),
    Read(Read),
}

pub(super) struct Stream {
    pub(super) id: u16,
    /// `None`: its RESULT was sent.
    work: Option<Work>,
}

impl Stream {
    /// `Err` is the RESULT of one that could not begin.
    pub(super) fn begin(id: u16, open: Open, nowhere: &File) -> Result<Self, String> {
        let work = match open {
            Open::Exec(order) => Work::Exec(Box::new(
                Exec::start(order, nowhere).map_err(|error| not_started(&error))?,
            )),
            Open::Write { path, mode } => {
                Work::Write(Write::begin(path, mode).map_err(|trouble| trouble.result())?)
            }
            Open::Read { path } => {
                Work::Read(Read::begin(path).map_err(|trouble| trouble.result())?)
            }
        };
        Ok(Self {
            id,
            work: Some(work),
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.work.is_none()
    }

    pub(super) fn poll_entries(&self, room: bool) -> [libc::pollfd; ENTRIES] {
        match &self.work {
            Some(Work::Exec(exec)) => exec.poll_entries(room),
            _ => [poll_entry(None, 0); ENTRIES],
        }
    }

    pub(super) fn wants_turn(&self) -> bool {
        match &self.work {
            Some(Work::Exec(exec)) => exec.wants_turn(),
            Some(Work::Read(read)) => read.wants_turn(),
            Some(Work::Write(_)) | None => false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.work {
            Some(Work::Exec(exec)) => exec.deadline(),
            _ => None,
        }
    }

    /// Its turn to send something. The entries are those of [`Self::poll_entries`]; a new stream has none yet.
    pub(super) fn attend(
        &mut self,
        entries: Option<&[libc::pollfd]>,
        out: &mut Out,
    ) -> Option<Process> {
        let step = match &mut self.work {
            Some(Work::Exec(exec)) => exec.attend(self.id, entries, out),
            Some(Work::Read(read)) => read.attend(self.id, out),
            Some(Work::Write(_)) | None => Step::GoOn,
        };
        self.give_credit(out);
        self.take_step(step, out)
    }

    pub(super) fn look_at_clock(&mut self, now: Instant, out: &mut Out) -> Option<Process> {
        let step = match &mut self.work {
            Some(Work::Exec(exec)) => exec.look_at_clock(now),
            _ => Step::GoOn,
        };
        self.take_step(step, out)
    }

    /// Takes what the host says to it. Frames that make no sense for it are passed over.
    pub(super) fn take(&mut self, frame: &Frame<'_>, out: &mut Out) -> Option<Process> {
        let step = match frame.kind {
            kind::DATA if frame.channel == STDIN => self.data(frame.payload),
            kind::END if frame.channel == STDIN => self.end(),
            kind::CREDIT => self.credit(frame),
            kind::RESIZE => self.resize(frame.payload),
            kind::CANCEL => self.cancel(),
            _ => Step::GoOn,
        };
        self.give_credit(out);
        self.take_step(step, out)
    }

    /// Ends it without a word.
    pub(super) fn abandon(self) -> Option<Process> {
        match self.work {
            Some(Work::Exec(exec)) => exec.into_process(),
            _ => None,
        }
    }

    /// Ends it with an error.
    pub(super) fn fail(mut self, trouble: &Trouble, out: &mut Out) -> Option<Process> {
        self.take_step(Step::Done(trouble.result()), out)
    }

    fn data(&mut self, bytes: &[u8]) -> Step {
        let taken = match &mut self.work {
            Some(Work::Exec(exec)) => exec.take(bytes).map_err(Trouble::from),
            Some(Work::Write(write)) => write.take(bytes),
            Some(Work::Read(_)) | None => Ok(()),
        };
        match taken {
            Ok(()) => Step::GoOn,
            Err(trouble) => Step::Done(trouble.result()),
        }
    }

    fn end(&mut self) -> Step {
        match self.work.take() {
            Some(Work::Write(write)) => {
                let result = write.end().unwrap_or_else(|trouble| trouble.result());
                Step::Done(result)
            }
            mut other => {
                if let Some(Work::Exec(exec)) = &mut other {
                    exec.input().end();
                }
                self.work = other;
                Step::GoOn
            }
        }
    }

    fn credit(&mut self, frame: &Frame<'_>) -> Step {
        if let Ok(bytes) = frame.payload.try_into().map(u32::from_le_bytes) {
            match &mut self.work {
                Some(Work::Exec(exec)) => exec.credit(frame.channel, bytes),
                Some(Work::Read(read)) => read.credit(frame.channel, bytes),
                Some(Work::Write(_)) | None => {}
            }
        }
        Step::GoOn
    }

    fn resize(&self, payload: &[u8]) -> Step {
        if let (Some(Work::Exec(exec)), [r0, r1, c0, c1]) = (&self.work, payload) {
            exec.resize(WindowSize {
                rows: u16::from_le_bytes([*r0, *r1]),
                columns: u16::from_le_bytes([*c0, *c1]),
            });
        }
        Step::GoOn
    }

    fn cancel(&mut self) -> Step {
        match &mut self.work {
            Some(Work::Exec(exec)) => exec.cancel(Instant::now()),
            Some(Work::Write(_) | Work::Read(_)) => Step::Done(
                Trouble {
                    errno: libc::ECANCELED,
                    message: "cancelled".to_owned(),
                }
                .result(),
            ),
            None => Step::GoOn,
        }
    }

    fn give_credit(&mut self, out: &mut Out) {
        let grant = match &mut self.work {
            Some(Work::Exec(exec)) => &mut exec.input().grant,
            Some(Work::Write(write)) => &mut write.grant,
            Some(Work::Read(_)) | None => return,
        };
        if let Some(bytes) = grant.give_back() {
            out.credit(self.id, STDIN, bytes);
        }
    }

    /// Sends the RESULT of one that has ended, and lets go of all that it had.
    fn take_step(&mut self, step: Step, out: &mut Out) -> Option<Process> {
        let Step::Done(result) = step else {
            return None;
        };
        out.frame(self.id, kind::RESULT, STDIN, result.as_bytes());
        match self.work.take() {
            Some(Work::Exec(exec)) => exec.into_process(),
            _ => None,
        }
    }
}

fn not_started(error: &SpawnError) -> String {
    let message: String = error
        .message
        .chars()
        .take(super::MESSAGE_MAX_CHARS)
        .collect();
    let error = Object::new()
        .number("errno", error.errno)
        .string("message", &message)
        .end();
    Object::new()
        .json("exit_code", "null")
        .json("signal", "null")
        .flag("timed_out", false)
        .json("spawn_error", &error)
        .end()
}
