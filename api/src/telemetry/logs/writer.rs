//! The thread that writes to standard error.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::Level;
use vmint_factory::supervise_thread;

use super::line::{Fields, Line, Style};
use super::queue::{Entry, Queue};

/// Starts the writer. It ends with the process.
pub(super) fn start(queue: Arc<Queue>, style: Style) -> io::Result<()> {
    let name = "log writer".to_owned();
    thread::Builder::new().name(name).spawn(move || {
        let _supervised = supervise_thread("log writer");
        run(&queue, style, &io::stderr());
    })?;
    Ok(())
}

fn run(queue: &Queue, style: Style, to: &impl AsFd) -> ! {
    let mut unreported = Unreported::default();
    loop {
        unreported.write(queue, queue.next(), style, to);
    }
}

/// How many lines were lost since it was last said.
#[derive(Default)]
struct Unreported(u64);

impl Unreported {
    /// Writes what is to be said of lines that were lost, and the next line.
    fn write(&mut self, queue: &Queue, next: Entry, style: Style, to: &impl AsFd) {
        self.0 += next.dropped_before;
        if self.0 > 0 && write_all(to, notice(style, self.0).as_bytes()).is_ok() {
            self.0 = 0;
        }
        if let Some(line) = next.line
            && write_all(to, line.as_bytes()).is_err()
        {
            queue.lost();
            self.0 += 1;
        }
    }
}

/// The line in place of those that were dropped.
fn notice(style: Style, dropped: u64) -> String {
    let mut fields = Fields::default();
    fields.set("dropped", dropped.into());
    fields.message = "log lines were dropped: standard error did not take them".to_owned();
    let line = Line {
        timestamp: Timestamp::now(),
        level: Level::WARN,
        target: module_path!(),
    };
    line.render(style, &fields)
}

/// Writes all of it, however long the reader takes. What was begun when an error came is lost with the line's rest.
fn write_all(to: &impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Another process has made the terminal or pipe that we share non-blocking.
            Err(Errno::AGAIN) => until_writable(to)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Waits for the reader. There is nothing else to do for this thread: no deadline.
fn until_writable(to: &impl AsFd) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(to, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
