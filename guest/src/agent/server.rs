//! The loop: what the host says, how the commands get on, what the host is told.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use super::calls;
use super::inbox::{Inbox, Line};
use super::jobs::Jobs;
use super::outbox::Outbox;
use super::port::{Heard, Port};
use super::request::Id;
use crate::failure::{Doing as _, Failure};
use crate::identity::Sources;
use crate::sys;

pub(super) struct Server<R, W> {
    port: Port<R, W>,
    inbox: Inbox,
    outbox: Outbox,
    jobs: Jobs,
    sources: Sources,
    /// The port's, then those of the commands; kept for its memory.
    entries: Vec<libc::pollfd>,
}

impl<R: Read + AsFd, W: Write> Server<R, W> {
    pub(super) fn new(port: Port<R, W>) -> Self {
        Self {
            port,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            jobs: Jobs::new(),
            sources: Sources::default(),
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
        self.entries.clear();
        self.entries.push(self.port.poll_entry(&self.outbox));
        self.jobs.poll_entries(&mut self.entries);
        sys::poll(&mut self.entries, self.jobs.time_left()).doing(|| "poll".to_owned())?;
        if self.entries[0].revents != 0 {
            self.hear()?;
        }
        self.jobs.attend(&self.entries[1..], &mut self.outbox);
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
                        Line::Whole(line) => {
                            calls::serve(line, &mut self.jobs, &mut self.sources, &mut self.outbox)
                        }
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
