//! Waiting for descriptors and signals.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use super::check;

/// Says which of the descriptors can be read, have ended, or have failed. Returns after `timeout` at the latest, and
/// when a signal comes; `None` waits for as long as it takes.
pub(crate) fn poll_readable<const N: usize>(fds: [Option<BorrowedFd<'_>>; N], timeout: Option<Duration>) -> io::Result<[bool; N]> {
    // A negative descriptor is one that poll passes over.
    let mut entries = fds.map(|fd| libc::pollfd { fd: fd.map_or(-1, |fd| fd.as_raw_fd()), events: libc::POLLIN, revents: 0 });
    let timeout_ms = timeout.map_or(-1, round_up_ms);
    // SAFETY: the pointer and the count describe `entries`.
    match check(unsafe { libc::poll(entries.as_mut_ptr(), N as libc::nfds_t, timeout_ms) }) {
        Ok(_) => Ok(entries.map(|entry| entry.revents != 0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok([false; N]),
        Err(error) => Err(error),
    }
}

/// Up, so that a wait does not spin through its last millisecond.
fn round_up_ms(duration: Duration) -> libc::c_int {
    libc::c_int::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
}

/// How many bytes a pipe holds.
pub(crate) fn readable_bytes(pipe: &impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request fills an int, which `count` is.
    check(unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Signals as something to poll. They stay blocked for this process, and for what it starts by `fork`, afterwards.
pub(crate) struct SignalFd(OwnedFd);

impl SignalFd {
    pub(crate) fn new(signals: &[libc::c_int]) -> io::Result<Self> {
        let set = signal_set(signals);
        // SAFETY: `set` is valid; no old set is asked for.
        check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) })?;
        // SAFETY: `set` is valid; -1 asks for a new descriptor.
        let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Runs `start` with no signal blocked, for the children that it starts. A SIGCHLD that comes meanwhile is lost:
    /// look for ended children afterwards.
    pub(crate) fn unblocked<T>(&self, start: impl FnOnce() -> T) -> io::Result<T> {
        let none = signal_set(&[]);
        // SAFETY: a signal set is plain bits, for which zeros are valid.
        let mut blocked: libc::sigset_t = unsafe { zeroed() };
        // SAFETY: both sets are valid.
        check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, &mut blocked) })?;
        let started = start();
        // SAFETY: `blocked` is what the call above has filled.
        check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &blocked, std::ptr::null_mut()) })?;
        Ok(started)
    }

    /// The signals that have come.
    pub(crate) fn drain(&self) -> io::Result<Vec<libc::c_int>> {
        let mut signals = Vec::new();
        loop {
            // SAFETY: the record is plain numbers; zeros are valid.
            let mut record: libc::signalfd_siginfo = unsafe { zeroed() };
            let size = size_of::<libc::signalfd_siginfo>();
            // SAFETY: the pointer and the size describe `record`.
            if unsafe { libc::read(self.0.as_raw_fd(), (&raw mut record).cast(), size) } > 0 {
                signals.push(record.ssi_signo as libc::c_int);
                continue;
            }
            return match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(signals),
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => Err(error),
            };
        }
    }
}

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: a signal set is plain bits, for which zeros are valid; the calls only change `set`.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}
