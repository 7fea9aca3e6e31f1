//! The few calls that the compiler cannot check: everything `unsafe` of this crate is here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// The user that a child process becomes.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
}

/// What a child process is to be, between fork and exec.
#[derive(Debug)]
pub(crate) struct ChildSettings {
    /// Descriptors that stay open, under the same numbers.
    pub(crate) inherited: Vec<RawFd>,
    /// Whom it becomes; nobody else when it is none.
    pub(crate) user: Option<Credentials>,
    /// Whether its memory comes in pages of 4 KiB only, even where it asks for 2 MiB.
    pub(crate) small_pages: bool,
    /// By how much its niceness is above our own.
    pub(crate) niceness: Option<i32>,
    /// Its `oom_score_adj` in digits, whatever ours is.
    pub(crate) oom_score_adj: Option<&'static [u8]>,
    /// The ruleset of its Landlock domain, which the caller holds open until the child has been spawned.
    pub(crate) ruleset: Option<RawFd>,
}

/// Makes the child lead its own session, dump no core (it would hold the guest's memory), gain no privileges, and be
/// what `settings` say.
pub(crate) fn prepare_child(command: &mut Command, settings: ChildSettings) {
    let ChildSettings {
        inherited,
        user,
        small_pages,
        niceness,
        oom_score_adj,
        ruleset,
    } = settings;
    let hook = move || -> io::Result<()> {
        nix::unistd::setsid()?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        close_on_exec_from(FIRST_FREE_FD)?;
        for &fd in &inherited {
            // SAFETY: the caller holds these descriptors open until the child has been spawned.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if let Some(score) = oom_score_adj {
            // Before the user changes: the file belongs to root from then on. A kernel that refuses is no reason not to
            // start; the parent looks at the value and reports it.
            let _ = set_oom_score_adj(score);
        }
        if let Some(user) = &user {
            nix::unistd::setgroups(&user.groups)?;
            nix::unistd::setgid(user.gid)?;
            nix::unistd::setuid(user.uid)?;
        }
        if let Some(above_ours) = niceness {
            rustix::process::nice(above_ours)?;
        }
        if small_pages {
            nix::sys::prctl::set_thp_disable(true)?;
        }
        nix::sys::prctl::set_no_new_privs()?;
        // Last: the domain forbids what comes before it.
        if let Some(ruleset) = ruleset {
            enter_domain(ruleset)?;
        }
        Ok(())
    };
    // SAFETY: the hook runs in the forked child. It makes system calls only, on data that was allocated before the
    // fork; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(hook) };
}

/// Sets how early the kernel's OOM killer takes the calling process. System calls only, for use between fork and exec.
fn set_oom_score_adj(score: &[u8]) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = nix::fcntl::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    nix::unistd::write(&file, score)?;
    Ok(())
}

/// Confines the calling process to a Landlock domain, for good. A system call, for use between fork and exec.
fn enter_domain(ruleset: RawFd) -> io::Result<()> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: plain numbers. A descriptor that is no ruleset is refused.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, NO_FLAGS) };
    Errno::result(done)?;
    Ok(())
}

/// The version of Landlock's interface that the kernel has.
///
/// # Errors
/// `ENOSYS` where it was built without, `EOPNOTSUPP` where it was started without.
pub(crate) fn landlock_abi() -> io::Result<u32> {
    const ASK_FOR_VERSION: libc::c_uint = 1;
    let (nothing, no_bytes) = (std::ptr::null::<libc::c_void>(), 0_usize);
    // SAFETY: with this flag the kernel reads nothing, and wants no address.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            no_bytes,
            ASK_FOR_VERSION,
        )
    };
    u32::try_from(Errno::result(version)?).map_err(io::Error::other)
}

/// The first descriptor that is none of the standard streams.
const FIRST_FREE_FD: libc::c_uint = 3;

/// Every descriptor from this one on is closed when a program is executed: also those that our own parent has left open
/// in us, which are none of a machine's business. A system call, for use between fork and exec (Linux 5.11).
fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    let (last, flags) = (libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: plain numbers; nothing is closed before the exec.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    Errno::result(done)?;
    Ok(())
}

/// The calling thread, and no other, has the file system rights of `whose` from now on: what it opens, it opens as them.
/// The library's own `setgroups` would change every thread.
///
/// # Errors
/// When the kernel does not let it; the thread may have part of those rights then, and must end.
pub(crate) fn take_on_file_rights(whose: &Credentials) -> io::Result<()> {
    let groups: Vec<libc::gid_t> = whose.groups.iter().map(|gid| gid.as_raw()).collect();
    // SAFETY: the call reads as many numbers as it is told of, from a list that has them.
    let set = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(set)?;
    // These two answer what was before, whether they succeed or not: what is now shows it.
    nix::unistd::setfsgid(whose.gid);
    nix::unistd::setfsuid(whose.uid);
    let none = u32::MAX;
    let gid_now = nix::unistd::setfsgid(Gid::from_raw(none));
    let uid_now = nix::unistd::setfsuid(Uid::from_raw(none));
    if (uid_now, gid_now) == (whose.uid, whose.gid) {
        Ok(())
    } else {
        Err(Errno::EPERM.into())
    }
}

/// The supplementary groups that the peer of a Unix socket had when it connected.
///
/// # Errors
/// When it is no connected Unix socket.
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<Gid>> {
    /// Most users have fewer; the kernel says how many there are when it is not enough.
    const USUAL_GROUPS: usize = 64;
    let mut groups: Vec<libc::gid_t> = vec![0; USUAL_GROUPS];
    loop {
        let bytes = std::mem::size_of_val(groups.as_slice());
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes into the list, which has as many.
        let got = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        match Errno::result(got) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups.into_iter().map(Gid::from_raw).collect());
            }
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Connects an open `/dev/net/tun` to the interface `name`, of one queue, whose packets come with a header for
/// checksums. The kernel makes the interface when there is none.
///
/// # Errors
/// Whatever the kernel says: `EPERM` when it belongs to somebody else, `EBUSY` when it is in use.
pub(crate) fn connect_tap(tun: &File, name: &str) -> io::Result<()> {
    // Two numbers of 16 bits at most: they fit.
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: the kernel reads a string.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(Errno::ENODEV.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the kernel reads and writes this one structure, which lives until the call returns.
    let connected = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    Errno::result(connected)?;
    Ok(())
}

/// Maps a whole file for reading.
///
/// # Errors
/// Whatever the system says.
pub(crate) fn map_file(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: the mapping is only read, byte by byte. Files that are mapped here are generations' memory files: they
    // are written by one process before they are published, are never made shorter, and belong to us.
    unsafe { memmap2::Mmap::map(file) }
}

/// How fast the processor's time stamp counter runs, kHz; none where it cannot be told. It blocks for a fiftieth of a
/// second.
pub(crate) fn tsc_khz() -> Option<u64> {
    const SPAN: Duration = Duration::from_millis(20);
    let (ticks, begun) = tsc_now()?;
    std::thread::sleep(SPAN);
    let (later, ended) = tsc_now()?;
    let micros = ended.duration_since(begun).as_micros();
    u64::try_from(u128::from(later.checked_sub(ticks)?) * 1000 / micros).ok()
}

/// The counter and the time, read so closely together that nothing came between them.
fn tsc_now() -> Option<(u64, Instant)> {
    const TRIES: usize = 100;
    const CLOSE: Duration = Duration::from_micros(2);
    for _ in 0..TRIES {
        let before = Instant::now();
        let ticks = tsc()?;
        if before.elapsed() < CLOSE {
            return Some((ticks, before));
        }
    }
    None
}

#[cfg(target_arch = "x86_64")]
fn tsc() -> Option<u64> {
    // SAFETY: every processor of this architecture has the instruction, it touches nothing, and Linux lets every
    // program use it unless that program has asked not to be let.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn tsc() -> Option<u64> {
    None
}

/// A descriptor that several may hold.
#[derive(Debug)]
pub(crate) struct SharedFd(Arc<OwnedFd>);

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Watches a descriptor until it can be read.
///
/// # Errors
/// When the runtime cannot watch it.
pub(crate) fn watch_readable(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<SharedFd>> {
    // SAFETY: the value owns a share of the descriptor, which cannot be taken out of it: it stays open, under the same
    // number, for as long as the value lives.
    unsafe { AsyncFd::register_with_interest(SharedFd(fd), Interest::READABLE) }
        .map_err(io::Error::from)
}

/// Signals one thread of this process, for tests of calls that a signal cuts short.
#[cfg(test)]
pub(crate) fn signal_thread<T>(thread: &std::thread::JoinHandle<T>, signal: libc::c_int) {
    use std::os::unix::thread::JoinHandleExt;
    // SAFETY: the thread was not joined yet, so its handle is valid; the number of the signal is checked by the kernel.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), signal) };
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_counters_speed_is_the_same_whenever_it_is_measured() {
        let measure = || super::tsc_khz().expect("this processor has a counter");
        let (one, other) = (measure(), measure());
        assert!(one > 100_000, "{one} kHz");
        assert!(one.abs_diff(other) < one / 1000, "{one} and {other} kHz");
    }
}
