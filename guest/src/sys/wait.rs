//! Waiting for descriptors and signals.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use super::check;

/// Waits for the first of the entries, at most for `timeout`; `None` waits for as long as it takes. What came is in the
/// entries; a signal ends the wait with nothing in them.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout_ms = timeout.map_or(-1, round_up_ms);
    // SAFETY: the pointer and the count describe `entries`.
    match check(unsafe {
        libc::poll(
            entries.as_mut_ptr(),
            entries.len() as libc::nfds_t,
            timeout_ms,
        )
    }) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            entries.iter_mut().for_each(|entry| entry.revents = 0);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Says which of the descriptors can be read, have ended, or have failed. Returns after `timeout` at the latest, and
/// when a signal comes; `None` waits for as long as it takes.
pub(crate) fn poll_readable<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    // A negative descriptor is one that poll passes over.
    let mut entries = fds.map(|fd| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    poll(&mut entries, timeout)?;
    Ok(entries.map(|entry| entry.revents != 0))
}

/// Up, so that a wait does not spin through its last millisecond.
fn round_up_ms(duration: Duration) -> libc::c_int {
    libc::c_int::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
}

/// A pipe that no program inherits: its end to read from, and the one to write to.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both descriptors are new and nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Reads and writes return at once from now on.
pub(crate) fn set_nonblocking(file: &impl AsFd) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: plain arguments.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: plain arguments.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// How many bytes a pipe holds.
pub(crate) fn readable_bytes(pipe: &impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request fills an int, which `count` is.
    check(unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Something to poll that is ready when one descriptor's state has *changed*: `poll` itself tells the state as it is, and
/// would return at once for as long as the other side has hung up.
pub(crate) struct ChangeWatch(OwnedFd);

impl ChangeWatch {
    pub(crate) fn on(watched: &impl AsFd) -> io::Result<Self> {
        // SAFETY: plain arguments.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET) as u32,
            u64: 0,
        };
        // SAFETY: `event` is valid, and both descriptors are open.
        check(unsafe {
            libc::epoll_ctl(
                epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                watched.as_fd().as_raw_fd(),
                &mut event,
            )
        })?;
        Ok(Self(epoll))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes note of the change, if there was one.
    pub(crate) fn take(&self) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: `event` has room for the one event that is asked for.
        check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), &mut event, 1, 0) }).map(drop)
    }
}

/// Signals as something to poll. They stay blocked for this process, and for what it starts by `fork`, afterwards.
pub(crate) struct SignalFd(OwnedFd);

impl SignalFd {
    pub(crate) fn new(signals: &[libc::c_int]) -> io::Result<Self> {
        block_signals(signals);
        let set = signal_set(signals);
        // SAFETY: `set` is valid; -1 asks for a new descriptor.
        let fd =
            check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
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

/// Blocks these signals for this thread, and for what it starts without saying otherwise.
pub(super) fn block_signals(signals: &[libc::c_int]) {
    let set = signal_set(signals);
    // SAFETY: `set` is valid and no old set is asked for, so that this cannot fail.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
}

pub(super) fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
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
