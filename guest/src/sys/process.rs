//! Children, process groups, and this process itself.

use std::io;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, kill_process_group, setrlimit,
};

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
}

/// Waits for any child that has ended, without blocking.
pub(crate) fn reap_any() -> Reap {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => Reap::Ended(pid.as_raw_nonzero().get(), how(status)),
        // An error says that there is no child: NOHANG is never interrupted, and the arguments are right.
        Ok(None) | Err(_) => Reap::NoneEnded,
    }
}

/// Waits for one child of ours, without blocking. `None`: it has not ended.
pub(crate) fn reap_child(pid: libc::pid_t) -> Option<Ended> {
    let pid = Pid::from_raw(pid)?;
    let reaped = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    reaped.ok().flatten().map(|(_, status)| how(status))
}

fn how(status: WaitStatus) -> Ended {
    match status.terminating_signal() {
        Some(signal) => Ended::Signalled(signal),
        None => Ended::Exited(status.exit_status().unwrap_or_default()),
    }
}

/// Any signal to one process that is known to be there, or was just seen.
pub(crate) fn signal(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    if pid <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: plain arguments. rustix takes no signals but those that have a name.
    super::check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// SIGKILL to a process group that a child of ours leads. That it is gone already is fine.
pub(crate) fn kill_group(leader: libc::pid_t) {
    if let Some(group) = Pid::from_raw(leader).filter(|_| leader > 1) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Memory of more than 128 KiB goes back to the system when it is freed. Without this the C library learns from the
/// first big piece that is freed to keep those after it.
pub(crate) fn return_big_allocations() {
    const SEPARATE_FROM_BYTES: libc::c_int = 128 * 1024;
    // SAFETY: plain arguments; a setting of the allocator.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, SEPARATE_FROM_BYTES) };
}

/// The resource limits of this process and of all that it starts (docs/guest.md). All that can be set are; the reason of
/// the first that was refused.
pub(crate) fn set_limits() -> io::Result<()> {
    set_each(|resource, limit| Ok(setrlimit(resource, limit)?))
}

const MEMLOCK_BYTES: u64 = 8 << 20;
/// What a program has, and what it may ask for; `None` is any number.
const LIMITS: [(Resource, Option<u64>, Option<u64>); 4] = [
    (Resource::Nofile, Some(1024), Some(1 << 20)),
    (Resource::Nproc, None, None),
    (Resource::Core, Some(0), None),
    (Resource::Memlock, Some(MEMLOCK_BYTES), Some(MEMLOCK_BYTES)),
];

fn set_each(mut set: impl FnMut(Resource, Rlimit) -> io::Result<()>) -> io::Result<()> {
    let outcomes =
        LIMITS.map(|(resource, current, maximum)| set(resource, Rlimit { current, maximum }));
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_refused_leaves_the_others_set() {
        let mut tried = 0;
        let refused = set_each(|_, _| {
            tried += 1;
            match tried {
                1 => Ok(()),
                number => Err(io::Error::from_raw_os_error(number)),
            }
        });
        assert_eq!(tried, LIMITS.len() as i32);
        let first = refused.expect_err("three were refused");
        assert_eq!(first.raw_os_error(), Some(2));
    }
}
