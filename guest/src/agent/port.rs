//! The way to the host, and what it does while no host is there.
//!
//! ```text
//! connected ──end of file──► silent ──the port's state changes, and no hang-up──► connected
//! ```
//!
//! A virtio port whose host is not connected is always readable, with nothing to read. So the port itself is not
//! polled then, but an edge-triggered watch on it: it wakes us when the host has come, and costs nothing until then.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use super::inbox::{Inbox, READ_MAX_BYTES};
use super::out::Out;
use super::poll_entry;
use crate::failure::{Doing as _, Failure};
use crate::sys::{self, ChangeWatch};

/// What a look at the port has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Something,
    /// Something, and most likely no more now.
    Last,
    Nothing,
    /// The host has gone.
    End,
}

pub(super) struct Port {
    input: File,
    output: File,
    silent: Option<ChangeWatch>,
}

impl Port {
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

    /// Both ends must not block.
    pub(super) fn new(input: File, output: File) -> Self {
        Self {
            input,
            output,
            silent: None,
        }
    }

    pub(super) fn poll_entry(&self, read: bool, write: bool) -> libc::pollfd {
        match &self.silent {
            Some(watch) => poll_entry(Some(watch.fd().as_raw_fd()), libc::POLLIN),
            None => {
                let read = if read { libc::POLLIN } else { 0 };
                let write = if write { libc::POLLOUT } else { 0 };
                poll_entry(Some(self.input.as_raw_fd()), read | write)
            }
        }
    }

    /// Reads once. Call it when the entry was ready.
    pub(super) fn listen(&mut self, inbox: &mut Inbox) -> Result<Heard, Failure> {
        if let Some(watch) = &self.silent {
            watch.take().doing(|| "watch the port".to_owned())?;
            if self.hung_up()? {
                return Ok(Heard::Nothing);
            }
            self.silent = None;
        }
        match inbox.fill(&mut self.input) {
            Ok(0) => self.fall_silent().map(|()| Heard::End),
            Ok(size) if size < READ_MAX_BYTES => Ok(Heard::Last),
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

    /// Writes as much as the port takes, while a host is there.
    pub(super) fn say(&mut self, out: &mut Out) -> Result<(), Failure> {
        if self.silent.is_some() {
            return Ok(());
        }
        match out.flush(&mut self.output) {
            // The port's other side tells of the end of the host.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done.doing(|| "write to the port".to_owned()),
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
        let mut entries = [poll_entry(Some(self.input.as_raw_fd()), libc::POLLIN)];
        sys::poll(&mut entries, Some(Duration::ZERO)).doing(|| "look at the port".to_owned())?;
        Ok(entries[0].revents & libc::POLLHUP != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Write as _, pipe};
    use std::os::fd::OwnedFd;

    use super::*;

    fn ready(port: &Port, wait: Duration) -> bool {
        let mut entries = [port.poll_entry(true, false)];
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
        host.write_all(b"x").expect("room in the pipe");
        assert!(ready(&port, Duration::from_secs(30)));
        assert_eq!(port.listen(&mut inbox).expect("a byte"), Heard::Last);
        drop(host);
        assert!(ready(&port, Duration::ZERO));
        assert_eq!(port.listen(&mut inbox).expect("the end"), Heard::End);
    }

    #[test]
    fn nothing_is_said_while_no_host_is_there() {
        let (guest, host) = pipe().expect("a pipe");
        drop(host);
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("the full device");
        let mut port = Port::new(File::from(OwnedFd::from(guest)), full);
        let mut out = Out::new();
        out.result(1, "{}");
        assert!(port.say(&mut out).is_err());
        let heard = port.listen(&mut Inbox::new());
        assert_eq!(heard.expect("the end"), Heard::End);
        port.say(&mut out).expect("no host is there");
        assert!(!out.is_empty());
    }
}
