//! Whether a process still runs, answered at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The flag of a task that has begun to exit (`PF_EXITING` in Linux' `sched.h`, shown in `/proc/<pid>/stat`).
const EXITING: u64 = 0x4;
/// The fields between the program's name, which may hold anything, and the flags.
const FLAGS_AFTER_NAME: usize = 6;

/// An open `/proc/<pid>/stat`: it is about that very process for ever, whoever gets its number later.
#[derive(Debug)]
pub(crate) struct ExitWatch(File);

impl ExitWatch {
    /// Watches a process whose number is certainly still its own: a child that has not been waited for, or one that
    /// is found to be alive afterwards.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/stat")).map(Self)
    }

    /// Whether the process has ended, or has begun to: a hypervisor that was killed takes milliseconds to give its
    /// memory back, and only then is it gone. One system call, some microseconds.
    pub(crate) fn has_exited(&self) -> bool {
        let mut stat = [0; 512];
        // A process that was waited for cannot be read about.
        self.0
            .read_at(&mut stat, 0)
            .map_or(true, |count| is_exiting(&stat[..count]))
    }
}

fn is_exiting(stat: &[u8]) -> bool {
    let Some(name_end) = stat.iter().rposition(|&byte| byte == b')') else {
        return true;
    };
    let rest = String::from_utf8_lossy(&stat[name_end + 1..]);
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = matches!(fields.next(), Some("Z" | "X") | None);
    let flags = fields
        .nth(FLAGS_AFTER_NAME - 1)
        .and_then(|flags| flags.parse::<u64>().ok());
    is_zombie || flags.is_none_or(|flags| flags & EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_found_behind_any_name() {
        let running = b"7 (a) Z (b) S 1 7 7 0 -1 4194560 0 0 0";
        assert!(!is_exiting(running));
        assert!(
            is_exiting(b"7 (a) S 1 7 7 0 -1 4194564 0 0 0"),
            "it has begun to exit"
        );
        assert!(
            is_exiting(b"7 (a) Z 1 7 7 0 -1 4194560 0 0 0"),
            "it waits for its parent"
        );
        assert!(is_exiting(b""), "nothing is known of it");
    }

    #[test]
    fn a_child_that_was_killed_is_seen_to_have_ended() -> io::Result<()> {
        let mut child = std::process::Command::new("sleep").arg("600").spawn()?;
        let watch = ExitWatch::of(child.id())?;
        assert!(!watch.has_exited());
        child.kill()?;
        while !watch.has_exited() {
            std::hint::spin_loop();
        }
        child.wait()?;
        assert!(watch.has_exited(), "and when it was waited for");
        Ok(())
    }
}
