//! What a process does at this moment, answered at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The flag of a task that has begun to exit (`PF_EXITING` in Linux' `sched.h`, shown in `/proc/<pid>/stat`).
const EXITING: u64 = 0x4;
/// The fields between the program's name, which may hold anything, and the flags.
const FLAGS_AFTER_NAME: usize = 6;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs, or waits to.
    Runs,
    /// It is stopped, by a signal or a debugger: until it is continued it does nothing.
    Stopped,
    /// It has ended, or has begun to.
    Ended,
}

/// An open `/proc/<pid>/stat`: it is about that very process for ever, whoever gets its number later.
#[derive(Debug)]
pub(crate) struct ExitWatch(File);

impl ExitWatch {
    /// Watches a process whose number is certainly still its own: a child that has not been waited for, or one that
    /// is found to be alive afterwards.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/stat")).map(Self)
    }

    /// What the process does. It has ended from when it begins to: a hypervisor that was killed takes milliseconds to
    /// give its memory back, and only then is it gone. One system call, some microseconds.
    pub(crate) fn state(&self) -> ProcessState {
        let mut stat = [0; 512];
        // A process that was waited for cannot be read about.
        self.0
            .read_at(&mut stat, 0)
            .map_or(ProcessState::Ended, |count| state_of(&stat[..count]))
    }

    /// Whether the process has ended, or has begun to.
    pub(crate) fn has_exited(&self) -> bool {
        self.state() == ProcessState::Ended
    }
}

fn state_of(stat: &[u8]) -> ProcessState {
    let Some(name_end) = stat.iter().rposition(|&byte| byte == b')') else {
        return ProcessState::Ended;
    };
    let rest = String::from_utf8_lossy(&stat[name_end + 1..]);
    let mut fields = rest.split_ascii_whitespace();
    let letter = fields.next();
    let flags = fields
        .nth(FLAGS_AFTER_NAME - 1)
        .and_then(|flags| flags.parse::<u64>().ok());
    let is_exiting = flags.is_none_or(|flags| flags & EXITING != 0);
    match letter {
        Some("Z" | "X") | None => ProcessState::Ended,
        _ if is_exiting => ProcessState::Ended,
        Some("T" | "t") => ProcessState::Stopped,
        Some(_) => ProcessState::Runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiting::wait_until;

    #[test]
    fn the_flags_are_found_behind_any_name() {
        for (stat, state, why) in [
            (
                &b"7 (a) Z (b) S 1 7 7 0 -1 4194560 0 0 0"[..],
                ProcessState::Runs,
                "it runs",
            ),
            (
                b"7 (a) S 1 7 7 0 -1 4194564 0 0 0",
                ProcessState::Ended,
                "it has begun to exit",
            ),
            (
                b"7 (a) Z 1 7 7 0 -1 4194560 0 0 0",
                ProcessState::Ended,
                "it waits for its parent",
            ),
            (
                b"7 (a) T 1 7 7 0 -1 4194560 0 0 0",
                ProcessState::Stopped,
                "a signal has stopped it",
            ),
            (
                b"7 (a) t 1 7 7 0 -1 4194560 0 0 0",
                ProcessState::Stopped,
                "a debugger has",
            ),
            (
                b"7 (a) T 1 7 7 0 -1 4194564 0 0 0",
                ProcessState::Ended,
                "one that was stopped is killed",
            ),
            (b"", ProcessState::Ended, "nothing is known of it"),
        ] {
            assert_eq!(state_of(stat), state, "{why}");
        }
    }

    #[test]
    fn a_child_that_was_killed_is_seen_to_have_ended() -> io::Result<()> {
        let mut child = std::process::Command::new("sleep").arg("600").spawn()?;
        let watch = ExitWatch::of(child.id())?;
        assert_eq!(watch.state(), ProcessState::Runs);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        let is_stopped = || watch.state() == ProcessState::Stopped;
        wait_until("it is stopped", is_stopped);
        child.kill()?;
        wait_until("it has ended", || watch.has_exited());
        child.wait()?;
        assert!(watch.has_exited(), "and when it was waited for");
        Ok(())
    }
}
