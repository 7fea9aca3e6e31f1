//! The loop: what the host says, how the commands get on, what the host is told.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use super::calls::{self, Parts};
use super::inbox::{Inbox, Line};
use super::jobs::Jobs;
use super::outbox::Outbox;
use super::port::{Heard, Port};
use super::request::Id;
use super::streams::{OpenPort, Streams};
use super::waits::Waits;
use crate::failure::{Doing as _, Failure};
use crate::identity::Sources;
use crate::sys;

/// Entries that are neither a command's nor a stream's.
const OTHERS: usize = 3;

pub(super) struct Server<R, W> {
    port: Port<R, W>,
    inbox: Inbox,
    outbox: Outbox,
    parts: Parts,
    /// The agent's port, the kernel's announcements, the stream port, then the commands, then the streams; kept for its
    /// memory.
    entries: Vec<libc::pollfd>,
}

impl<R: Read + AsFd, W: Write> Server<R, W> {
    pub(super) fn new(port: Port<R, W>, open_stream_port: OpenPort) -> Self {
        Self {
            port,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            parts: Parts {
                jobs: Jobs::new(),
                waits: Waits::new(),
                streams: Streams::new(open_stream_port),
                sources: Sources::default(),
            },
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
        let of_streams = self.poll()?;
        let Parts {
            jobs,
            waits,
            streams,
            ..
        } = &mut self.parts;
        // First, because a reset that is heard below changes what the entries belong to.
        streams.attend(&self.entries[2], &self.entries[of_streams..], jobs);
        waits.attend(&self.entries[1], &mut self.outbox);
        if self.entries[0].revents != 0 {
            self.hear()?;
        }
        // Commands that were started just now have no entries, and come behind those that have.
        let of_jobs = &self.entries[OTHERS..of_streams];
        self.parts.jobs.attend(of_jobs, &mut self.outbox);
        if !self.outbox.is_empty() {
            self.port.say(&mut self.outbox)?;
        }
        Ok(())
    }

    /// Waits for something to do. Returns where the entries of the streams begin, behind those of the commands.
    fn poll(&mut self) -> Result<usize, Failure> {
        let Parts {
            jobs,
            waits,
            streams,
            ..
        } = &self.parts;
        let others = [
            self.port.poll_entry(&self.outbox),
            waits.poll_entry(),
            streams.poll_entry(),
        ];
        self.entries.clear();
        self.entries.extend_from_slice(&others);
        jobs.poll_entries(&mut self.entries);
        let of_streams = self.entries.len();
        streams.poll_entries(&mut self.entries);
        let time_left = [jobs.time_left(), waits.time_left(), streams.time_left()];
        let time_left = time_left.into_iter().flatten().min();
        sys::poll(&mut self.entries, time_left).doing(|| "poll".to_owned())?;
        Ok(of_streams)
    }

    fn hear(&mut self) -> Result<(), Failure> {
        match self.port.listen(&mut self.inbox)? {
            Heard::Nothing => {}
            Heard::End => {
                self.inbox.clear();
                self.outbox.clear();
            }
            Heard::Something => {
                while let Some(line) = self.inbox.next_line() {
                    match line {
                        Line::Whole(line) => calls::serve(line, &mut self.parts, &mut self.outbox),
                        Line::TooLong => self.outbox.error(
                            &Id::none(),
                            calls::GENERIC,
                            "the request is longer than 16 MiB",
                        ),
                    }
                }
            }
        }
        Ok(())
    }
}
