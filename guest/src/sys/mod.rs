//! Every system call that std does not offer, and with it all of the helper's `unsafe`.
//!
//! The functions here are safe to call: arguments are checked or typed so that no call can break memory. They return
//! `io::Result` and leave it to the caller to say what was being done.

mod clock;
mod devices;
pub(crate) mod entry;
mod kernel;
mod process;
mod spawn;
mod terminal;
mod wait;

use std::io;

pub(crate) use clock::{
    NANOS_PER_SECOND, clock_realtime_ns, rtc_read, rtc_write, set_clock_realtime,
    set_clock_realtime_ns, step_clock_realtime,
};
pub(crate) use devices::{UeventSocket, loopback_up};
pub(crate) use kernel::{
    ENTROPY_MAX_BYTES, Power, add_entropy, clear_kernel_log_mark, hostname, load_module,
    memory_bytes, mount, power, random_bytes, reseed, seek_data, set_hostname, sync,
};
pub(crate) use process::{
    Ended, Reap, become_subreaper, kill_child, kill_group, reap_any, reap_child,
    return_big_allocations, signal,
};
pub(crate) use spawn::{
    Credentials, SpawnFailure, SpawnPlan, notice_protection, protect_from_oom, spawn,
};
pub(crate) use terminal::give_to;
pub(crate) use wait::{
    ChangeWatch, SignalFd, pipe, poll, poll_readable, readable_bytes, set_nonblocking,
};

/// Where a guest looks for programs, unless its caller says otherwise.
pub(crate) const GUEST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The system's text for an error number, without std's `(os error N)` behind it.
pub(crate) fn error_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.rsplit_once(" (os error")
        .map_or(text.clone(), |(text, _)| text.to_owned())
}

/// The usual convention of the C library: -1 means that errno says why.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
