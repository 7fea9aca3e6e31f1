//! Ending everything that descends from the command.
//!
//! The process group goes first. What left the group is found because the helper is a child subreaper: when its
//! parent dies it becomes the helper's own child, so killing own children until there are none reaches all of it.

use std::fs;
use std::time::{Duration, Instant};

use crate::sys::{self, Ended};

/// A killed process is gone in microseconds, unless it hangs in the kernel; then the run must end all the same.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// Kills the group of `main` and all other descendants. Returns how `main` ended, where that was seen.
pub(super) fn kill_all(main: libc::pid_t) -> Option<Ended> {
    let give_up = Instant::now() + PATIENCE;
    // The group's id cannot belong to others: its leader is our child and was not waited for yet.
    sys::kill_group(main);
    let mut main_ended = None;
    loop {
        for pid in own_children() {
            sys::kill_child(pid);
        }
        match reap(main) {
            Reaped::NoChildLeft(ended) => return main_ended.or(ended),
            Reaped::SomeLeft(ended) => main_ended = main_ended.or(ended),
        }
        if Instant::now() >= give_up {
            return main_ended;
        }
        std::thread::sleep(PAUSE);
    }
}

/// What is left after all that have ended were waited for; with the end of `main`, if it was among them.
pub(super) enum Reaped {
    SomeLeft(Option<Ended>),
    NoChildLeft(Option<Ended>),
}

impl Reaped {
    pub(super) fn main_ended(self) -> Option<Ended> {
        match self {
            Self::SomeLeft(ended) | Self::NoChildLeft(ended) => ended,
        }
    }
}

/// Waits, without blocking, for every child that has ended: orphans of the command are among them.
pub(super) fn reap(main: libc::pid_t) -> Reaped {
    let mut main_ended = None;
    loop {
        match sys::reap_any() {
            sys::Reap::Ended(pid, ended) if pid == main => main_ended = Some(ended),
            sys::Reap::Ended(..) => {}
            sys::Reap::NoneEnded => return Reaped::SomeLeft(main_ended),
            sys::Reap::NoChild => return Reaped::NoChildLeft(main_ended),
        }
    }
}

/// Empty where the kernel does not offer the list: then only the process group is killed.
fn own_children() -> Vec<libc::pid_t> {
    let list = fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()))
        .unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
