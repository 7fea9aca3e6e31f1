//! System calls, and with them all of this program's `unsafe`.
//!
//! What rustix has is called through it; what it lacks (a process that borrows our memory, signal masks, the hardware
//! clock, the random generator) is called here by hand. The functions are safe to call: arguments are checked or typed so
//! that no call can break memory. They return `io::Result` and leave it to the caller to say what was being done.

mod clock;
mod devices;
mod entry;
mod kernel;
mod process;
mod spawn;
mod terminal;
mod wait;

use std::io;

pub(crate) use clock::{clock_realtime_ns, rtc_write, set_clock_realtime_ns, step_clock_realtime};
pub(crate) use devices::{UeventSocket, loopback_up};
pub(crate) use entry::be_as_started_by_the_kernel;
pub(crate) use kernel::{
    ENTROPY_MAX_BYTES, Power, add_entropy, anonymous_file, clear_kernel_log_mark, hostname,
    is_made_by_kernel, load_module, memory_bytes, power, random_bytes, reseed, seek_data,
    set_hostname,
};
pub(crate) use process::{
    Ended, Reap, kill_group, reap_any, reap_child, return_big_allocations, set_limits, signal,
};
pub(crate) use rustix::fs::sync;
pub(crate) use rustix::mount::{MountFlags, mount};
pub(crate) use spawn::{
    Credentials, SpawnFailure, SpawnPlan, notice_protection, protect_from_oom, spawn,
};
pub(crate) use terminal::{WindowSize, end_of_file_character, open_terminal, resize_terminal};
pub(crate) use wait::{
    ChangeWatch, SignalFd, poll, poll_readable, readable_bytes, set_nonblocking, widen_pipe,
};

/// Where a guest looks for programs, unless its caller says otherwise.
pub(crate) const GUEST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The system's text for an error number, without std's `(os error N)` behind it.
pub(crate) fn error_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.rsplit_once(" (os error")
        .map_or(text.clone(), |(text, _)| text.to_owned())
}

/// A pipe that no program inherits: its end to read from, and the one to write to.
pub(crate) fn pipe() -> io::Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// The usual convention of the C library: -1 means that errno says why.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
