//! The loop: what the host says, how processes and files get on, what the host is told.
//!
//! - A connection begins with the host's mark. What belongs to the one before ends then, or when no host was there for
//!   more than a moment: processes of `exec`, files, requests that wait. Listed processes go on.
//! - Processes and files take turns: each sends at most one frame a turn.
//! - What the host says is taken only while there is room for what that leads to.

use std::time::{Duration, Instant};

use vmint_guest_protocol::frame::{CONTROL, Frame, Kind, Mark, STREAM_MAX};
use vmint_guest_protocol::message::{OPEN_MAX_BYTES, Parts as Message, REQUEST_MAX_BYTES};
use vmint_guest_protocol::names::codes;
use vmint_guest_protocol::{STREAMS_MAX, channel};

use super::control::{self, Parts};
use super::files::Files;
use super::inbox::{Inbox, Next};
use super::open::{self, Open};
use super::out::Out;
use super::port::{Heard, Port};
use super::processes::{Memory, Processes};
use super::refusal::Refusal;
use super::waits::Waits;
use crate::failure::{Doing as _, Failure};
use crate::identity::Sources;
use crate::sys::{self, WindowSize};

/// A host that is away for longer is not the same any more. The kernel may tell of the end of one connection when the next
/// one is in use already: that is no reason to end what belongs to it.
const AWAY_MAX: Duration = Duration::from_secs(1);
/// Reads of the port in one turn, each of a page at most.
const READS_MAX: u32 = 16;
/// Entries that are no process's: the port and the kernel's announcements.
const OTHERS: usize = 2;

pub(super) struct Server {
    port: Port,
    inbox: Inbox,
    /// A request, and what opens a stream, as far as they have come.
    request: Message,
    opening: Message,
    out: Out,
    parts: Parts,
    /// Since then no host is there.
    away_since: Option<Instant>,
    /// Whole frames may be in the inbox that were not taken, because the port did not take ours.
    stalled: bool,
    /// Kept for its memory.
    entries: Vec<libc::pollfd>,
}

impl Server {
    /// With what an agent before this one has left.
    pub(super) fn new(port: Port, memory: Option<Memory>) -> Self {
        Self {
            port,
            inbox: Inbox::new(),
            request: Message::default(),
            opening: Message::default(),
            out: Out::new(),
            parts: Parts {
                processes: Processes::open(memory),
                files: Files::new(),
                waits: Waits::new(),
                sources: Sources::default(),
            },
            away_since: None,
            stalled: false,
            entries: Vec::new(),
        }
    }

    /// Serves until the port fails.
    pub(super) fn run(mut self) -> Failure {
        loop {
            if let Err(failure) = self.turn() {
                return failure;
            }
        }
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.poll()?;
        let port_events = self.entries[0].revents;
        if port_events != 0 {
            self.port.say(&mut self.out)?;
        }
        let Parts {
            processes,
            files,
            waits,
            ..
        } = &mut self.parts;
        // First, because what is heard below changes what the entries belong to.
        processes.attend(&self.entries[OTHERS..], &mut self.out);
        files.attend(&mut self.out);
        if waits.attend(&self.entries[1], &mut self.out) {
            processes.memory_has_grown();
        }
        let is_away = self.away_since.is_some_and(|it| it.elapsed() >= AWAY_MAX);
        if is_away {
            self.away_since = None;
            self.inbox.be_deaf();
            self.lose_connection();
        }
        if port_events != 0 {
            self.hear(port_events)?;
        }
        self.port.say(&mut self.out)?;
        self.parts.processes.remember_bound();
        Ok(())
    }

    /// Waits for something to do.
    fn poll(&mut self) -> Result<(), Failure> {
        let Parts {
            processes,
            files,
            waits,
            ..
        } = &self.parts;
        let room = self.out.has_room();
        let ready = room && (processes.wants_turn() || files.wants_turn());
        let write = !self.out.is_empty() || self.stalled || ready;
        self.entries.clear();
        let port = self.port.poll_entry(!self.out.is_full(), write);
        self.entries.extend_from_slice(&[port, waits.poll_entry()]);
        processes.poll_entries(room, &mut self.entries);
        let away = self.away_since.map(|since| since + AWAY_MAX);
        let deadline = [processes.deadline(), away].into_iter().flatten().min();
        // Without a deadline the clock is not even read.
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = [left, waits.time_left()].into_iter().flatten().min();
        sys::poll(&mut self.entries, left).doing(|| "poll".to_owned())
    }

    /// Reads what the host says.
    fn hear(&mut self, events: libc::c_short) -> Result<(), Failure> {
        self.take_frames();
        let mut reads_left = READS_MAX;
        while !self.stalled && reads_left > 0 {
            match self.port.listen(&mut self.inbox)? {
                Heard::Something => self.take_frames(),
                Heard::Last => {
                    self.take_frames();
                    break;
                }
                Heard::Nothing | Heard::End => break,
            }
            reads_left -= 1;
        }
        if self.stalled && events & libc::POLLHUP != 0 {
            // Nothing is read now, so that this would be told again and again.
            self.port.fall_silent()?;
        }
        let is_away = self.port.is_silent() && !self.inbox.is_deaf();
        self.away_since = match (is_away, self.away_since) {
            (true, None) => Some(Instant::now()),
            (true, since) => since,
            (false, _) => None,
        };
        Ok(())
    }

    fn take_frames(&mut self) {
        loop {
            self.stalled = self.out.is_full();
            if self.stalled {
                return;
            }
            match self.inbox.next() {
                Next::Nothing => return,
                Next::Begun(mark) => self.begin(&mark),
                Next::Broken => self.lose_connection(),
                Next::Frame(frame) => match frame.stream {
                    CONTROL => {
                        take_message(&frame, &mut self.request, &mut self.parts, &mut self.out)
                    }
                    1..=STREAM_MAX => {
                        take_frame(&frame, &mut self.opening, &mut self.parts, &mut self.out);
                    }
                    _ => {}
                },
            }
        }
    }

    fn begin(&mut self, mark: &Mark) {
        self.lose_connection();
        self.out.begin(mark);
    }

    /// What belongs to the connection ends without a word.
    fn lose_connection(&mut self) {
        let Parts {
            processes,
            files,
            waits,
            ..
        } = &mut self.parts;
        processes.lose_connection(&mut self.out);
        files.lose_connection();
        waits.lose_connection();
        self.request.clear();
        self.opening.clear();
        self.out.clear();
        self.stalled = false;
    }
}

fn take_message(frame: &Frame<'_>, request: &mut Message, parts: &mut Parts, out: &mut Out) {
    if frame.kind != Some(Kind::Message) {
        return;
    }
    match request.take(frame.channel, frame.payload, REQUEST_MAX_BYTES) {
        Ok(Some(text)) => control::serve(text, parts, out),
        Ok(None) => {}
        Err(error) => {
            out.refuse(None, &Refusal::new(codes::ARGUMENT, error.to_string()));
        }
    }
}

/// A frame of a stream. Those that make no sense for it are passed over, and so is what was said to a stream before its
/// end was known.
fn take_frame(frame: &Frame<'_>, opening: &mut Message, parts: &mut Parts, out: &mut Out) {
    let stream = frame.stream;
    let Parts {
        processes, files, ..
    } = parts;
    let is_file = files.has_stream(stream);
    match (frame.kind, frame.channel) {
        (Some(Kind::Open), _) => take_open(frame, opening, parts, out),
        (Some(Kind::Data), channel::INPUT) if is_file => files.data(stream, frame.payload, out),
        (Some(Kind::Data), channel::INPUT) => processes.data(stream, frame.payload, out),
        (Some(Kind::End), channel::INPUT) if is_file => files.end(stream, out),
        (Some(Kind::End), channel::INPUT) => processes.end_input(stream, out),
        (Some(Kind::Cancel), _) if is_file => files.cancel(stream, out),
        (Some(Kind::Cancel), _) => processes.cancel(stream, out),
        (Some(Kind::Credit), channel) => {
            let bytes = frame.payload.try_into().map(u32::from_le_bytes);
            if let (Ok(bytes), Some(place)) = (bytes, channel.checked_sub(channel::OUTPUT)) {
                files.credit(stream, channel, bytes);
                processes.credit(stream, place.into(), bytes);
            }
        }
        (Some(Kind::Resize), _) => {
            if let [r0, r1, c0, c1] = *frame.payload {
                let window = WindowSize {
                    rows: u16::from_le_bytes([r0, r1]),
                    columns: u16::from_le_bytes([c0, c1]),
                };
                processes.resize(stream, window);
            }
        }
        _ => {}
    }
}

fn take_open(frame: &Frame<'_>, opening: &mut Message, parts: &mut Parts, out: &mut Out) {
    let stream = frame.stream;
    parts.processes.remember_bound();
    let taken = match opening.take(frame.channel, frame.payload, OPEN_MAX_BYTES) {
        Ok(None) => return,
        Ok(Some(text)) => Ok(text),
        Err(error) => Err(Refusal::new(codes::ARGUMENT, error.to_string())),
    };
    // Two of one number could not be told apart: the one that is there stays.
    if parts.files.has_stream(stream) || parts.processes.has_stream(stream) {
        return;
    }
    if let Err(refusal) = taken.and_then(|text| open_stream(stream, text, parts, out)) {
        out.result(stream, &refusal.result());
    }
}

fn open_stream(stream: u16, text: &[u8], parts: &mut Parts, out: &mut Out) -> Result<(), Refusal> {
    let Parts {
        processes, files, ..
    } = parts;
    if processes.stream_count() + files.stream_count() >= STREAMS_MAX {
        return Err(Refusal::too_many(STREAMS_MAX, "streams are open"));
    }
    match open::parse(text, processes.bases())? {
        Open::Exec(order) => processes.exec(stream, *order, out),
        Open::Attach(attach) => processes.attach(stream, &attach, out),
        Open::Write(wanted) => files.write(stream, wanted),
        Open::Read(path) => files.read(stream, path),
    }
}
