//! The way to the host, and what it does while no host is there.
//!
//! ```text
//! connected ──end of file──► silent ──the port's state changes, and no hang-up──► connected
//! ```
//!
//! A virtio port whose host is not connected is always readable, with nothing to read. So the port itself is not
//! polled then, but an edge-triggered watch on it: it wakes us when the host has come, and costs nothing until then.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use super::inbox::Inbox;
use super::outbox::Outbox;
use crate::failure::{Doing as _, Failure};
use crate::sys::{self, ChangeWatch};

/// What a look at the port has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Something,
    Nothing,
    /// The host has gone: what was half said is void.
    End,
}

pub(super) struct Port<R, W> {
    input: R,
    output: W,
    silent: Option<ChangeWatch>,
}

impl Port<File, File> {
    pub(super) fn open(path: &str) -> Result<Self, Failure> {
        let doing = || format!("open {path}");
        let input = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .doing(doing)?;
        let output = input.try_clone().doing(doing)?;
        Ok(Self::new(input, output))
    }
}

impl<R: Read + AsFd, W: Write> Port<R, W> {
    /// Both ends must not block.
    pub(super) fn new(input: R, output: W) -> Self {
        Self {
            input,
            output,
            silent: None,
        }
    }

    /// What to poll for, with or without something to say.
    pub(super) fn poll_entry(&self, outbox: &Outbox) -> libc::pollfd {
        self.poll_entry_for(true, !outbox.is_empty())
    }

    pub(super) fn poll_entry_for(&self, read: bool, write: bool) -> libc::pollfd {
        let (fd, events) = match &self.silent {
            Some(watch) => (watch.fd(), libc::POLLIN),
            None => {
                let read = if read { libc::POLLIN } else { 0 };
                let write = if write { libc::POLLOUT } else { 0 };
                (self.fd(), read | write)
            }
        };
        libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        }
    }

    /// Reads once. Call it when the entry was ready.
    pub(super) fn listen(&mut self, inbox: &mut Inbox) -> Result<Heard, Failure> {
        self.listen_with(&mut |input| inbox.fill(input))
    }

    /// As [`Self::listen`], with whatever takes what the one read gives.
    pub(super) fn listen_with(
        &mut self,
        fill: &mut dyn FnMut(&mut R) -> io::Result<usize>,
    ) -> Result<Heard, Failure> {
        if let Some(watch) = &self.silent {
            watch.take().doing(|| "watch the port".to_owned())?;
            if self.hung_up()? {
                return Ok(Heard::Nothing);
            }
            self.silent = None;
        }
        match fill(&mut self.input) {
            Ok(0) => self.fall_silent().map(|()| Heard::End),
            Ok(_) => Ok(Heard::Something),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(Heard::Nothing)
            }
            Err(error) => Err(Failure::new("read from the port", error)),
        }
    }

    pub(super) fn say(&mut self, outbox: &mut Outbox) -> Result<(), Failure> {
        match self.silent {
            // Nobody would hear it, and whoever comes next did not ask for it.
            Some(_) => outbox.clear(),
            None => outbox
                .flush(&mut self.output)
                .doing(|| "write to the port".to_owned())?,
        }
        Ok(())
    }

    /// Where to write to, while somebody is there.
    pub(super) fn output(&mut self) -> Option<&mut W> {
        match self.silent {
            Some(_) => None,
            None => Some(&mut self.output),
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// Polls no more for anything but the host's return, if it has really gone.
    pub(super) fn fall_silent(&mut self) -> Result<(), Failure> {
        let watch = ChangeWatch::on(&self.input).doing(|| "watch the port".to_owned())?;
        // The first look is ready at once, with the state as it is. A host that came back meanwhile is seen here.
        watch.take().doing(|| "watch the port".to_owned())?;
        self.silent = self.hung_up()?.then_some(watch);
        Ok(())
    }

    fn hung_up(&self) -> Result<bool, Failure> {
        let mut entries = [libc::pollfd {
            fd: self.fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        sys::poll(&mut entries, Some(Duration::ZERO)).doing(|| "look at the port".to_owned())?;
        Ok(entries[0].revents & libc::POLLHUP != 0)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use super::*;

    fn ready(port: &Port<File, File>, wait: Duration) -> bool {
        let mut entries = [port.poll_entry(&Outbox::new())];
        sys::poll(&mut entries, Some(wait)).expect("one descriptor can be polled");
        entries[0].revents != 0
    }

    /// A FIFO behaves as a virtio port when its other side goes and comes.
    #[test]
    fn a_silent_port_is_not_ready_until_the_host_is_back() {
        let (guest, host) = pipe().expect("a pipe");
        let output = File::options()
            .write(true)
            .open("/dev/null")
            .expect("the null device");
        let fifo = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", guest.as_raw_fd()));
        let mut port = Port::new(fifo.expect("a pipe can be opened again"), output);
        let mut inbox = Inbox::new();
        assert!(!ready(&port, Duration::ZERO));
        drop(host);
        assert!(ready(&port, Duration::ZERO));
        assert_eq!(port.listen(&mut inbox).expect("the end"), Heard::End);
        assert!(!ready(&port, Duration::ZERO), "it would spin");
        let mut host = File::options()
            .write(true)
            .open(format!("/proc/self/fd/{}", guest.as_raw_fd()))
            .expect("a pipe can be opened again");
        host.write_all(b"x\n").expect("room in the pipe");
        assert!(ready(&port, Duration::from_secs(30)));
        assert_eq!(port.listen(&mut inbox).expect("a line"), Heard::Something);
        drop(host);
        assert!(ready(&port, Duration::ZERO));
        assert_eq!(port.listen(&mut inbox).expect("the end"), Heard::End);
    }

    #[test]
    fn nothing_is_said_to_nobody() {
        let (guest, host) = pipe().expect("a pipe");
        drop(host);
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("the full device");
        let mut port = Port::new(File::from(std::os::fd::OwnedFd::from(guest)), full);
        let mut outbox = Outbox::new();
        outbox.text("x");
        assert!(port.say(&mut outbox).is_err());
        assert_eq!(port.listen(&mut Inbox::new()).expect("the end"), Heard::End);
        port.say(&mut outbox).expect("nobody is there");
        assert!(outbox.is_empty());
    }
}
