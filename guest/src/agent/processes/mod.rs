//! All processes of the host's.
//!
//! ```text
//! exec ──► Process ◄── start        one Process, whoever asked for it
//!             │
//!             ├─ group: its control group, from `groups`
//!             ├─ input: one sink, any number of streams that write to it
//!             ├─ outputs: two, each read for any number of streams, and kept where that was asked for
//!             └─ record: what is listed, for those of `start`
//! ```
//!
//! What always holds:
//! - A process of `exec` belongs to its stream and goes with it; it has no record. A process of `start` is listed until it is
//!   forgotten, whoever is attached.
//! - A process is here until it was waited for, is not listed, and no stream is attached to it. So a stream's number is in
//!   use exactly as long as a process (or a file, in `files`) has it.
//! - An output is read as fast as the slowest attached stream has credit, freely while none is attached.
//! - Whatever processes write, at most 16 MiB of it are kept.
//! - What an agent after this one must know is in [`memory`] before the host is told of it.

mod descendants;
mod groups;
mod input;
mod kept;
mod memory;
mod output;
mod process;
mod record;
mod start;

use std::fs::File;
use std::time::Instant;

use serde::Serialize;
use vmint_guest_protocol::names::{codes, ended_by};
use vmint_guest_protocol::{ENDED_MAX, KEPT_ALL_MAX_BYTES, PROCESSES_MAX};

pub(super) use self::input::Grant;
pub(super) use self::memory::Memory;

use self::groups::Groups;
use self::memory::Known;
use self::process::{ENTRIES, Process};
pub(super) use self::record::Draft;
use self::record::{Fate, Record, State};
use super::open::Attach;
use super::order::{Bases, Order};
use super::out::Out;
use super::refusal::Refusal;
use crate::command::Environment;
use crate::json;
use crate::sys::{self, WindowSize};

pub(super) struct Processes {
    /// In the order of their start.
    all: Vec<Process>,
    groups: Groups,
    /// What every command starts from, and what a checkout has bound to this machine.
    bases: Bases,
    next_number: u64,
    memory: Option<Memory>,
    /// What was bound is not in `memory` yet.
    bound_is_news: bool,
    /// Opened once, at the first command.
    nowhere: Option<File>,
    /// Whose turn is the first.
    first: usize,
}

impl Processes {
    /// Goes on where an agent before this one was: what ran then is killed.
    pub(super) fn open(mut memory: Option<Memory>) -> Self {
        let remembered = memory.as_mut().map(Memory::recall).unwrap_or_default();
        let groups = Groups::open();
        for running in remembered.running {
            running.kill_if_alive();
        }
        let mut records = remembered.records;
        let now_ms = now_ms();
        let mut lost = false;
        for record in &mut records {
            if record.state == State::Running {
                record.end(&Fate::unseen(ended_by::AGENT_LOST), now_ms);
                lost = true;
            }
        }
        let mut processes = Self {
            all: records.into_iter().map(Process::of_record).collect(),
            groups,
            bases: Bases {
                own: Environment::own(),
                bound: remembered.bound,
            },
            next_number: remembered.next_number.max(1),
            memory,
            bound_is_news: false,
            nowhere: None,
            first: 0,
        };
        if lost {
            // More have ended at once than are listed.
            processes.forget_oldest();
            processes.remember();
        }
        processes
    }

    pub(super) fn bases(&self) -> &Bases {
        &self.bases
    }

    pub(super) fn bind(&mut self, env: &Environment) {
        if !env.is_empty() {
            self.bases.bound.merge(env);
            self.bound_is_news = true;
        }
    }

    /// Remembers what was bound. In a fresh clone that costs milliseconds, so a checkout is answered before; nothing else is
    /// heard in between, and no command runs that could end the agent.
    pub(super) fn remember_bound(&mut self) {
        if self.bound_is_news {
            self.remember();
        }
    }

    /// Whether each process has a control group of its own.
    pub(super) fn have_groups(&self) -> bool {
        self.groups.are_there()
    }

    pub(super) fn prepare(&mut self) -> std::io::Result<()> {
        self.groups.prepare()
    }

    /// The guest has more memory now.
    pub(super) fn memory_has_grown(&self) {
        self.groups.limit_memory();
    }

    /// One that belongs to a stream.
    pub(super) fn exec(&mut self, stream: u16, order: Order, out: &mut Out) -> Result<(), Refusal> {
        let mut process = self.begin(order, false)?;
        process.attach(stream, true, false, true);
        process.settle(out);
        self.all.push(process);
        if !self.have_groups() {
            // The next agent would not know of it.
            self.remember();
        }
        Ok(())
    }

    /// One that is listed; what the host is told of it.
    pub(super) fn start(&mut self, order: Order) -> Result<String, Refusal> {
        let (draft, keep) = (order.draft(), order.keep_output);
        let mut process = self.begin(order, keep)?;
        process.list(draft, self.next_number, now_ms());
        let json = json::text(&process.describe());
        self.next_number += 1;
        self.all.push(process);
        self.remember();
        Ok(json)
    }

    fn begin(&mut self, order: Order, keep: bool) -> Result<Process, Refusal> {
        let running = self.all.iter().filter(|it| !it.has_ended()).count();
        if running >= PROCESSES_MAX {
            return Err(Refusal::too_many(PROCESSES_MAX, "processes run"));
        }
        let nowhere = match &mut self.nowhere {
            Some(nowhere) => nowhere,
            none => {
                let opened = File::options().read(true).write(true).open("/dev/null");
                none.insert(opened.map_err(|error| Refusal::of_file("/dev/null", &error))?)
            }
        };
        Ok(Process::start(order, keep, nowhere, &mut self.groups)?)
    }

    /// One more reader and writer of a listed process.
    pub(super) fn attach(
        &mut self,
        stream: u16,
        attach: &Attach,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        let process = self.listed(&attach.process)?;
        let (replay, follow) = (attach.replay, attach.follow);
        process.attach(
            stream,
            false,
            replay.unwrap_or(false),
            follow.unwrap_or(true),
        );
        process.settle(out);
        Ok(())
    }

    pub(super) fn list(&self) -> String {
        #[derive(Serialize)]
        struct List {
            processes: Vec<Record>,
        }
        let listed = self.all.iter().filter(|process| process.is_listed);
        let processes = listed.filter_map(Process::describe).collect();
        json::text(&List { processes })
    }

    pub(super) fn show(&mut self, id: &str) -> Result<String, Refusal> {
        Ok(json::text(&self.listed(id)?.describe()))
    }

    pub(super) fn signal(&mut self, id: &str, signal: i32) -> Result<(), Refusal> {
        let process = self.listed(id)?;
        if process.has_ended() {
            let message = format!("process {id} has ended");
            return Err(Refusal::new(codes::ENDED, message));
        }
        process
            .signal(signal)
            .map_err(|error| Refusal::of_file(&format!("signal {signal} to {id}"), &error))
    }

    /// Kills one that runs, and forgets one that has ended. What it was.
    pub(super) fn end(&mut self, id: &str) -> Result<&'static str, Refusal> {
        let process = self.listed(id)?;
        if !process.has_ended() {
            process.kill(ended_by::KILLED, Instant::now());
            return Ok("running");
        }
        process.is_listed = false;
        self.forget_over();
        self.remember();
        Ok("exited")
    }

    fn listed(&mut self, id: &str) -> Result<&mut Process, Refusal> {
        let found = self.all.iter_mut().find(|process| {
            let record = process.record.as_ref();
            process.is_listed && record.is_some_and(|record| record.id == id)
        });
        found.ok_or_else(|| Refusal::new(codes::NO_PROCESS, format!("there is no process {id}")))
    }

    /// Streams that are attached.
    pub(super) fn stream_count(&self) -> usize {
        self.all.iter().map(|it| it.readers().len()).sum()
    }

    fn of_stream(&mut self, stream: u16) -> Option<&mut Process> {
        self.all.iter_mut().find(|it| it.has_reader(stream))
    }

    pub(super) fn has_stream(&self, stream: u16) -> bool {
        self.all.iter().any(|it| it.has_reader(stream))
    }

    /// `DATA` for standard input.
    pub(super) fn data(&mut self, stream: u16, bytes: &[u8], out: &mut Out) {
        let Some(process) = self.of_stream(stream) else {
            return;
        };
        if let Err(refusal) = process.take_input(stream, bytes) {
            out.result(stream, &refusal.result());
            if process.detach(stream, out) {
                process.abandon(Instant::now());
            }
        }
        process.settle(out);
        self.forget_over();
    }

    /// `END` of standard input.
    pub(super) fn end_input(&mut self, stream: u16, out: &mut Out) {
        if let Some(process) = self.of_stream(stream) {
            process.end_input();
            process.settle(out);
        }
    }

    pub(super) fn credit(&mut self, stream: u16, place: usize, bytes: u32) {
        if let Some(process) = self.of_stream(stream) {
            process.credit(stream, place, bytes);
        }
    }

    pub(super) fn resize(&mut self, stream: u16, window: WindowSize) {
        if let Some(process) = self.of_stream(stream) {
            process.resize(window);
        }
    }

    pub(super) fn cancel(&mut self, stream: u16, out: &mut Out) {
        if let Some(process) = self.of_stream(stream) {
            process.cancel(stream, Instant::now(), out);
            process.settle(out);
            self.forget_over();
        }
    }

    /// What belongs to the connection ends.
    pub(super) fn lose_connection(&mut self, out: &mut Out) {
        let now = Instant::now();
        for process in &mut self.all {
            process.lose_connection(now, out);
        }
        self.forget_over();
    }

    /// Adds what to poll.
    pub(super) fn poll_entries(&self, room: bool, entries: &mut Vec<libc::pollfd>) {
        for process in &self.all {
            entries.extend_from_slice(&process.poll_entries(room));
        }
    }

    pub(super) fn wants_turn(&self) -> bool {
        self.all.iter().any(Process::wants_turn)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.all.iter().filter_map(Process::deadline).min()
    }

    /// Looks after all of them; another one is the first each time. The entries are those of [`Self::poll_entries`].
    pub(super) fn attend(&mut self, entries: &[libc::pollfd], out: &mut Out) {
        let count = self.all.len();
        let (mut kept, mut ended) = (false, false);
        for turn in 0..count {
            let place = (self.first + turn) % count;
            let process = &mut self.all[place];
            let was_ended = process.has_ended();
            let entries = entries.get(place * ENTRIES..(place + 1) * ENTRIES);
            kept |= process.attend(entries, &mut self.groups, out);
            ended |= process.is_listed && process.has_ended() != was_ended;
        }
        self.first = self.first.wrapping_add(1) % count.max(1);
        self.look_at_clock(out);
        if kept {
            self.bound_kept();
        }
        self.forget_over();
        if ended {
            self.forget_oldest();
            self.remember();
        }
    }

    fn look_at_clock(&mut self, out: &mut Out) {
        // Without a deadline the clock is not even read.
        if self.deadline().is_some() {
            let now = Instant::now();
            for process in &mut self.all {
                process.look_at_clock(now, out);
            }
        }
    }

    /// The oldest process's output is the first to go.
    fn bound_kept(&mut self) {
        let kept: usize = self.all.iter().map(Process::kept_bytes).sum();
        let mut over = kept.saturating_sub(KEPT_ALL_MAX_BYTES);
        for process in &mut self.all {
            let before = process.kept_bytes();
            if over > 0 && before > 0 {
                process.forget_kept(over);
                over = over.saturating_sub(before - process.kept_bytes());
            }
        }
    }

    fn forget_over(&mut self) {
        self.all.retain(|process| !process.is_over());
    }

    /// The newest that have ended are listed.
    fn forget_oldest(&mut self) {
        let ended_at = |process: &&mut Process| match &process.record {
            Some(record) if process.is_listed => record.ended_at_ms,
            _ => None,
        };
        let mut ended: Vec<&mut Process> = self.all.iter_mut().collect();
        ended.retain(|process| ended_at(process).is_some());
        // Of those that have ended at once, the first that was started is the oldest.
        ended.sort_by_key(ended_at);
        let over = ended.len().saturating_sub(ENDED_MAX);
        for process in &mut ended[..over] {
            process.is_listed = false;
        }
        self.forget_over();
    }

    fn remember(&mut self) {
        self.bound_is_news = false;
        let Some(memory) = &mut self.memory else {
            return;
        };
        let listed = self.all.iter().filter(|process| process.is_listed);
        let stored = memory.store(&Known {
            next_number: self.next_number,
            bound: &self.bases.bound,
            records: listed.filter_map(|it| it.record.as_ref()).collect(),
            running: self.all.iter().filter_map(Process::born).collect(),
        });
        if let Err(error) = stored {
            eprintln!("vmint-agent: what must outlive the agent is not stored: {error}");
        }
    }
}

fn now_ms() -> i64 {
    sys::clock_realtime_ns() / 1_000_000
}

/// Whether a text is a record.
pub(super) fn read_record(text: &[u8]) -> bool {
    json::object::<Record>(text).is_ok()
}
