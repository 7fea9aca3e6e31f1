//! The loop: what the host says, how the commands get on, what the host is told.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use super::calls::{self, Parts};
use super::inbox::{Inbox, Line};
use super::jobs::Jobs;
use super::outbox::Outbox;
use super::port::{Heard, Port};
use super::request::Id;
use super::waits::Waits;
use crate::failure::{Doing as _, Failure};
use crate::identity::Sources;
use crate::sys;

pub(super) struct Server<R, W> {
    port: Port<R, W>,
    inbox: Inbox,
    outbox: Outbox,
    parts: Parts,
    /// The port's, then those of the commands; kept for its memory.
    entries: Vec<libc::pollfd>,
}

impl<R: Read + AsFd, W: Write> Server<R, W> {
    pub(super) fn new(port: Port<R, W>) -> Self {
        Self {
            port,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            parts: Parts {
                jobs: Jobs::new(),
                waits: Waits::new(),
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
        let Parts { jobs, waits, .. } = &mut self.parts;
        self.entries.clear();
        self.entries.push(self.port.poll_entry(&self.outbox));
        self.entries.push(waits.poll_entry());
        jobs.poll_entries(&mut self.entries);
        let time_left = [jobs.time_left(), waits.time_left()].into_iter().flatten();
        sys::poll(&mut self.entries, time_left.min()).doing(|| "poll".to_owned())?;
        if self.entries[0].revents != 0 {
            self.hear()?;
        }
        let Parts { jobs, waits, .. } = &mut self.parts;
        waits.attend(&self.entries[1], &mut self.outbox);
        jobs.attend(&self.entries[2..], &mut self.outbox);
        if !self.outbox.is_empty() {
            self.port.say(&mut self.outbox)?;
        }
        Ok(())
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
