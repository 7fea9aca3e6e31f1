//! The few calls that the compiler cannot check: everything `unsafe` of this crate is here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
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
