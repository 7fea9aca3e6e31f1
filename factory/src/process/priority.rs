//! Processes that give way: they run on what others leave of the processors, and on their share of a busy host.
//!
//! A template's boot is one as long as its pool serves: it keeps a processor busy for seconds, while clones are made for
//! those who check out. It must end all the same, so it is nice, and not idle: against one process that is
//! not, it has a quarter of a processor.
//!
//! A niceness counts among the processes of one session only where the kernel groups them so (`autogroup`, see
//! `sched(7)`), and each of ours has a session of its own. There the session as a whole must be nice. Where cgroups
//! divide the processors, there are no such groups, and the niceness alone counts.

use std::fs;
use std::io;

/// What a process that gives way adds to its niceness: a third of the weight. So a build takes three times as long at most,
/// on the busiest of hosts, and its guest answers within `ready_timeout` yet. A tenth (10) made that two minutes where four
/// other processes kept two processors busy.
pub(super) const NICENESS: i32 = 5;

/// Has the session of a process give way, where the kernel groups by sessions. The process must lead one of its own.
pub(super) fn lower_session(pid: u32) {
    let path = format!("/proc/{pid}/autogroup");
    match fs::write(&path, NICENESS.to_string()) {
        Ok(()) => {}
        // This kernel has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // It works as before, and others wait a little longer.
        Err(error) => {
            tracing::warn!(path, %error, "a build cannot be made to give way to clones");
        }
    }
}
