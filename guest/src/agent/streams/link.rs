//! The stream port: opened when a host first asks for it, let go when it fails.

use std::fs::File;
use std::time::{Duration, Instant};

use super::frame::Nonce;
use super::mux::Mux;
use crate::agent::jobs::Jobs;
use crate::agent::port::Port;
use crate::agent::process::poll_entry;
use crate::failure::Failure;

/// How the port is opened.
pub(in crate::agent) type OpenPort = Box<dyn FnMut() -> Result<Port<File, File>, Failure> + Send>;

pub(in crate::agent) struct Streams {
    open_port: OpenPort,
    live: Option<Box<Mux>>,
}

impl Streams {
    pub(in crate::agent) fn new(open_port: OpenPort) -> Self {
        Self {
            open_port,
            live: None,
        }
    }

    /// `vmint-stream-reset`: all streams end, and nothing is listened to until the mark.
    pub(in crate::agent) fn reset(&mut self, nonce: &Nonce) -> Result<(), Failure> {
        let mux = match &mut self.live {
            Some(mux) => mux,
            none => none.insert(Box::new(Mux::new())),
        };
        if !mux.has_port() {
            mux.use_port((self.open_port)()?);
        }
        mux.reset(nonce);
        Ok(())
    }

    /// The port's own entry.
    pub(in crate::agent) fn poll_entry(&self) -> libc::pollfd {
        let entry = self.live.as_ref().map(|mux| mux.poll_entry());
        entry.unwrap_or(poll_entry(None, 0))
    }

    /// Adds what to poll for the streams.
    pub(in crate::agent) fn poll_entries(&self, entries: &mut Vec<libc::pollfd>) {
        if let Some(mux) = &self.live {
            mux.poll_entries(entries);
        }
    }

    /// Until the next deadline.
    pub(in crate::agent) fn time_left(&self) -> Option<Duration> {
        let deadline = self.live.as_ref()?.deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Call it after every poll, with what came of it, before anything is changed by the agent's own port.
    pub(in crate::agent) fn attend(
        &mut self,
        port: &libc::pollfd,
        entries: &[libc::pollfd],
        jobs: &Jobs,
    ) {
        let Some(mux) = &mut self.live else {
            return;
        };
        if let Err(failure) = mux.turn(port, entries, jobs) {
            // The agent itself is well, and the next reset opens the port anew.
            eprintln!("vmint-agent: streams: {failure}");
            mux.lose_port();
        }
    }
}
