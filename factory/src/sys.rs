//! The few calls that the compiler cannot check: everything `unsafe` of this crate is here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid};
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
}

/// Makes the child lead its own session, dump no core (it would hold the guest's memory), gain no privileges, and be
/// what `settings` say.
pub(crate) fn prepare_child(command: &mut Command, settings: ChildSettings) {
    let ChildSettings {
        inherited,
        user,
        small_pages,
    } = settings;
    let hook = move || -> io::Result<()> {
        nix::unistd::setsid()?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        for &fd in &inherited {
            // SAFETY: the caller holds these descriptors open until the child has been spawned.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if let Some(user) = &user {
            nix::unistd::setgroups(&user.groups)?;
            nix::unistd::setgid(user.gid)?;
            nix::unistd::setuid(user.uid)?;
        }
        if small_pages {
            nix::sys::prctl::set_thp_disable(true)?;
        }
        nix::sys::prctl::set_no_new_privs()?;
        Ok(())
    };
    // SAFETY: the hook runs in the forked child. It makes system calls only, on data that was allocated before the
    // fork; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(hook) };
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
