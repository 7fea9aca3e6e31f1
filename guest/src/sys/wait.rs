//! Waiting for descriptors and signals.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::check;

/// Waits for the first of the entries, at most for `timeout`; `None` waits for as long as it takes. What came is in the
/// entries; a signal ends the wait with nothing in them.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout_ms = timeout.map_or(-1, round_up_ms);
    // SAFETY: the pointer and the count describe `entries`. rustix's entries borrow their descriptors, which change here
    // between two polls.
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
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut entries = fds.map(|fd| libc::pollfd {
        fd: fd.as_raw_fd(),
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

/// Reads and writes return at once from now on.
pub(crate) fn set_nonblocking(file: &impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(file, true)?)
}

/// How many bytes a pipe holds.
pub(crate) fn readable_bytes(pipe: &impl AsFd) -> io::Result<usize> {
    let count = rustix::io::ioctl_fionread(pipe)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Makes room for more in a pipe. False for what is none.
pub(crate) fn widen_pipe(pipe: &impl AsFd, bytes: usize) -> bool {
    // Where the kernel refuses so much, the pipe is what it was.
    rustix::pipe::fcntl_setpipe_size(pipe, bytes) != Err(rustix::io::Errno::BADF)
}

/// Something to poll that is ready when one descriptor's state has *changed*: `poll` itself tells the state as it is, and
/// would return at once for as long as the other side has hung up.
pub(crate) struct ChangeWatch(OwnedFd);

impl ChangeWatch {
    pub(crate) fn on(watched: &impl AsFd) -> io::Result<Self> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let changes = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&watch, watched, epoll::EventData::new_u64(0), changes)?;
        Ok(Self(watch))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes note of the change, if there was one.
    pub(crate) fn take(&self) -> io::Result<()> {
        let mut event = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        let at_once = Timespec::default();
        epoll::wait(&self.0, &mut event, Some(&at_once))?;
        Ok(())
    }
}

/// Signals as something to poll. They stay blocked for this process.
pub(crate) struct SignalFd(OwnedFd);

impl SignalFd {
    pub(crate) fn new(signals: &[libc::c_int]) -> io::Result<Self> {
        block_signals(signals);
        let set = signal_set(signals);
        // SAFETY: `set` is valid; -1 asks for a new descriptor.
        let fd =
            check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new, and no one else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The signals that have come.
    pub(crate) fn drain(&self) -> io::Result<Vec<libc::c_int>> {
        let mut signals = Vec::new();
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        loop {
            match rustix::io::read(&self.0, &mut record) {
                Ok(_) => {
                    // The first field of the record.
                    let [a, b, c, d, ..] = record;
                    signals.push(i32::from_ne_bytes([a, b, c, d]));
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(signals),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
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
