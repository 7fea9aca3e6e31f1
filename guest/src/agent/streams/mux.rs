//! Many streams over one port.
//!
//! ```text
//! deaf ──vmint-stream-reset──► awaiting the mark ──MARK──► synced
//!   ▲                               ▲                        │
//!   │                               └──vmint-stream-reset────┤
//!   └────────────── a frame that is too long, or the host has gone
//! ```
//!
//! Streams take turns: each sends at most one frame a turn, and another one is the first each time.

use std::fs::File;
use std::time::{Duration, Instant};

use super::frame::{Frame, Inbox, Nonce, PORT_ITSELF, TooLong, kind, mark};
use super::open;
use super::out::Out;
use super::stream::Stream;
use super::{ENTRIES, OPEN_MAX, STDIN, Trouble};
use crate::agent::jobs::Jobs;
use crate::agent::port::{Heard, Port};
use crate::agent::process::{Process, poll_entry};
use crate::failure::{Doing as _, Failure};

/// A host that is away for longer is not the same any more. The kernel may tell of the end of one connection when the next
/// one is in use already: that is no reason to end its streams.
const AWAY_MAX: Duration = Duration::from_secs(1);
/// Reads of the port in one turn, each of a page at most.
const READS_MAX: u32 = 16;

/// What is made of the bytes that come.
enum Hearing {
    Deaf,
    Awaiting(Nonce),
    Synced,
}

pub(super) struct Mux {
    /// `None` before the first reset, and after a failure.
    port: Option<Port<File, File>>,
    hearing: Hearing,
    inbox: Inbox,
    out: Out,
    streams: Vec<Stream>,
    /// Whose turn is the first.
    first: usize,
    /// Killed, of no interest to anybody, and not waited for yet.
    leftovers: Vec<Process>,
    /// Since then no host is there.
    away_since: Option<Instant>,
    /// Whole frames may be in the inbox that were not taken, because the port did not take ours.
    stalled: bool,
}

impl Mux {
    pub(super) fn new() -> Self {
        Self {
            port: None,
            hearing: Hearing::Deaf,
            inbox: Inbox::new(),
            out: Out::new(),
            streams: Vec::new(),
            first: 0,
            leftovers: Vec::new(),
            away_since: None,
            stalled: false,
        }
    }

    pub(super) fn has_port(&self) -> bool {
        self.port.is_some()
    }

    pub(super) fn use_port(&mut self, port: Port<File, File>) {
        self.port = Some(port);
    }

    /// Nothing can be said or heard any more, until there is another one.
    pub(super) fn lose_port(&mut self) {
        self.abandon_all();
        self.away_since = None;
        self.port = None;
    }

    pub(super) fn reset(&mut self, nonce: &Nonce) {
        self.abandon_all();
        self.away_since = None;
        self.hearing = Hearing::Awaiting(*nonce);
    }

    /// Ends every stream without a word.
    fn abandon_all(&mut self) {
        for stream in std::mem::take(&mut self.streams) {
            self.bury(stream.abandon());
        }
        self.inbox.clear();
        self.out.clear();
        self.stalled = false;
        self.hearing = Hearing::Deaf;
    }

    pub(super) fn poll_entry(&self) -> libc::pollfd {
        let ready = self.out.has_room() && self.streams.iter().any(Stream::wants_turn);
        let write = !self.out.is_empty() || self.stalled || ready;
        match &self.port {
            Some(port) => port.poll_entry_for(!self.out.is_full(), write),
            None => poll_entry(None, 0),
        }
    }

    pub(super) fn poll_entries(&self, entries: &mut Vec<libc::pollfd>) {
        for stream in &self.streams {
            entries.extend_from_slice(&stream.poll_entries(self.out.has_room()));
        }
        entries.extend(self.leftovers.iter().map(Process::poll_entry));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let streams = self.streams.iter().filter_map(Stream::deadline).min();
        let away = self.away_since.map(|since| since + AWAY_MAX);
        [streams, away].into_iter().flatten().min()
    }

    /// Looks after the streams, takes what the host says, and says what there is to say.
    pub(super) fn turn(
        &mut self,
        port: &libc::pollfd,
        entries: &[libc::pollfd],
        jobs: &Jobs,
    ) -> Result<(), Failure> {
        if port.revents != 0 {
            self.flush()?;
        }
        self.attend(entries);
        self.look_at_clock();
        if port.revents != 0 {
            self.hear(port.revents, jobs)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let Some(output) = self.port.as_mut().and_then(Port::output) else {
            return Ok(());
        };
        match self.out.flush(output) {
            // The port's other side tells of the end of the host.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                self.out.clear();
                Ok(())
            }
            done => done.doing(|| "write to the port".to_owned()),
        }
    }

    /// The entries are those of [`Self::poll_entries`].
    fn attend(&mut self, entries: &[libc::pollfd]) {
        let count = self.streams.len();
        let (of_streams, of_leftovers) = entries.split_at(count * ENTRIES);
        for place in 0..count {
            let place = (self.first + place) % count;
            let entries = &of_streams[place * ENTRIES..][..ENTRIES];
            let left = self.streams[place].attend(Some(entries), &mut self.out);
            self.bury(left);
        }
        self.first = self.first.wrapping_add(1);
        self.forget_ended();
        if of_leftovers.iter().any(|entry| entry.revents != 0) {
            self.leftovers.retain(|process| process.reap().is_none());
        }
    }

    fn look_at_clock(&mut self) {
        if self.deadline().is_none() {
            return;
        }
        let now = Instant::now();
        for stream in &mut self.streams {
            let left = stream.look_at_clock(now, &mut self.out);
            bury(&mut self.leftovers, left);
        }
        self.forget_ended();
        if self.away_since.is_some_and(|since| now >= since + AWAY_MAX) {
            self.away_since = None;
            self.abandon_all();
        }
    }

    /// Reads what the host says, as far as there is room for what it leads to.
    fn hear(&mut self, revents: libc::c_short, jobs: &Jobs) -> Result<(), Failure> {
        self.take_frames(jobs);
        let mut reads_left = READS_MAX;
        while !self.stalled && reads_left > 0 {
            let Self { port, inbox, .. } = self;
            let Some(port) = port else {
                return Ok(());
            };
            match port.listen_with(&mut |input| inbox.fill(input))? {
                Heard::Something => self.take_frames(jobs),
                Heard::Nothing | Heard::End => break,
            }
            reads_left -= 1;
        }
        let Some(port) = &mut self.port else {
            return Ok(());
        };
        if self.stalled && revents & libc::POLLHUP != 0 {
            // Nothing is read now, so that this would be told again and again.
            port.fall_silent()?;
        }
        let away = port.is_silent() && !self.streams.is_empty();
        self.away_since = match (away, self.away_since) {
            (true, None) => Some(Instant::now()),
            (true, since) => since,
            (false, _) => None,
        };
        Ok(())
    }

    fn take_frames(&mut self, jobs: &Jobs) {
        loop {
            self.stalled = false;
            match &self.hearing {
                Hearing::Deaf => return self.inbox.clear(),
                Hearing::Awaiting(nonce) => {
                    let mark = mark(nonce);
                    if !self.inbox.pass_mark(&mark) {
                        return;
                    }
                    self.out.raw(&mark);
                    self.hearing = Hearing::Synced;
                }
                Hearing::Synced => {}
            }
            if self.out.is_full() {
                self.stalled = true;
                return;
            }
            let Self {
                inbox,
                out,
                streams,
                leftovers,
                ..
            } = self;
            match inbox.next() {
                None => return,
                Some(Ok(frame)) => {
                    let left = take(&frame, streams, jobs, out);
                    bury(leftovers, left);
                    self.forget_ended();
                }
                Some(Err(TooLong)) => self.fail_all(),
            }
        }
    }

    /// Nothing that comes can be understood any more.
    fn fail_all(&mut self) {
        let trouble = Trouble::own("a frame was longer than 32 KiB");
        for stream in std::mem::take(&mut self.streams) {
            let left = stream.fail(&trouble, &mut self.out);
            self.bury(left);
        }
        self.inbox.clear();
        self.hearing = Hearing::Deaf;
    }

    fn bury(&mut self, process: Option<Process>) {
        bury(&mut self.leftovers, process);
    }

    fn forget_ended(&mut self) {
        self.streams.retain(|stream| !stream.has_ended());
    }
}

/// Whoever was not waited for is killed, if nobody has done that yet, and waited for.
fn bury(leftovers: &mut Vec<Process>, process: Option<Process>) {
    if let Some(mut process) = process {
        process.kill(Instant::now());
        leftovers.push(process);
    }
}

fn take(
    frame: &Frame<'_>,
    streams: &mut Vec<Stream>,
    jobs: &Jobs,
    out: &mut Out,
) -> Option<Process> {
    if frame.stream == PORT_ITSELF || frame.stream == 0 {
        return None;
    }
    let known = streams.iter_mut().find(|stream| stream.id == frame.stream);
    match (known, frame.kind) {
        // Two of one name could not be told apart: the one that is there stays.
        (Some(_), kind::OPEN) => None,
        (Some(stream), _) => stream.take(frame, out),
        (None, kind::OPEN) => {
            match begin(frame, streams.len(), jobs) {
                Ok(stream) => streams.push(stream),
                Err(result) => out.frame(frame.stream, kind::RESULT, STDIN, result.as_bytes()),
            }
            None
        }
        // What was said to it before its end was known.
        (None, _) => None,
    }
}

/// `Err` is the RESULT of one that could not begin.
fn begin(frame: &Frame<'_>, open: usize, jobs: &Jobs) -> Result<Stream, String> {
    if open >= OPEN_MAX {
        let trouble = Trouble::own(format!("{OPEN_MAX} streams are open already"));
        return Err(trouble.result());
    }
    let wanted = open::parse(frame.payload, jobs).map_err(|trouble| trouble.result())?;
    let nowhere = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| Trouble::of_file("/dev/null", &error).result())?;
    Stream::begin(frame.stream, wanted, &nowhere)
}
