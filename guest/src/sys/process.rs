//! Children, process groups, and this process's own environment.

use std::ffi::OsStr;
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
        pid if pid > 0 => {
            let signalled = libc::WIFSIGNALED(status);
            let ended = if signalled { Ended::Signalled(libc::WTERMSIG(status)) } else { Ended::Exited(libc::WEXITSTATUS(status)) };
            Reap::Ended(pid, ended)
        }
        // ECHILD: WNOHANG is never interrupted, and the arguments are right.
        _ => Reap::NoChild,
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

/// From now on orphaned descendants become children of this process.
pub(crate) fn become_subreaper() -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: plain arguments.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on) }).map(drop)
}

/// Leaves the caller's session and terminal.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Sets a variable of this process, from which children inherit.
pub(crate) fn set_env(key: &OsStr, value: &OsStr) {
    // SAFETY: the helper has one thread, so nobody reads the environment at the same time.
    unsafe { std::env::set_var(key, value) }
}
