//! Children, process groups, and this process itself.

use std::io;

use super::check;

/// How a process ended: its exit code, or the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Signalled(i32),
}

/// One look for a child that has ended.
pub(crate) enum Reap {
    Ended(libc::pid_t, Ended),
    NoneEnded,
    NoChild,
}

/// Waits for any child that has ended, without blocking.
pub(crate) fn reap_any() -> Reap {
    let mut status = 0;
    // SAFETY: `status` is a valid int for the call to fill.
    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
        0 => Reap::NoneEnded,
        pid if pid > 0 => Reap::Ended(pid, how(status)),
        // ECHILD: WNOHANG is never interrupted, and the arguments are right.
        _ => Reap::NoChild,
    }
}

/// Waits for one child of ours, without blocking. `None`: it has not ended.
pub(crate) fn reap_child(pid: libc::pid_t) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: `status` is a valid int for the call to fill.
    let reaped = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
    (reaped == pid).then(|| how(status))
}

fn how(status: libc::c_int) -> Ended {
    if libc::WIFSIGNALED(status) {
        Ended::Signalled(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    }
}

/// Any signal to one process. That it is gone already is fine.
pub(crate) fn signal(pid: libc::pid_t, signal: libc::c_int) {
    if pid > 1 {
        // SAFETY: plain arguments.
        unsafe { libc::kill(pid, signal) };
    }
}

/// SIGKILL to a process group that a child of ours leads. That it is gone already is fine.
pub(crate) fn kill_group(leader: libc::pid_t) {
    if leader > 1 {
        // SAFETY: plain arguments.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
}

/// SIGKILL to a child that was not waited for, so that its id cannot have gone to another process.
pub(crate) fn kill_child(pid: libc::pid_t) {
    if pid > 1 {
        // SAFETY: plain arguments.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Memory of more than 128 KiB goes back to the system when it is freed. Without this the C library learns from the
/// first big piece that is freed to keep those after it.
pub(crate) fn return_big_allocations() {
    const SEPARATE_FROM_BYTES: libc::c_int = 128 * 1024;
    // SAFETY: plain arguments; a setting of the allocator.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, SEPARATE_FROM_BYTES) };
}

/// From now on orphaned descendants become children of this process.
pub(crate) fn become_subreaper() -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: plain arguments.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on) }).map(drop)
}
