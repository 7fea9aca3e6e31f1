//! Ending a process with everything that descends from it, and nothing else, where the kernel has no control groups.
//!
//! Other commands, and what earlier ones have left in the background, are children of ours or of process 1 just the same.
//! So what belongs to the command is looked up: whoever is in its session (a process that left the group is still in
//! that), and whoever has one of them as an ancestor.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use crate::sys;

/// A stopped process makes no more children, so that each round finds only what was made during the one before.
const ROUNDS_MAX: u32 = 32;
/// No more rounds are begun after this long: everything else that the agent is asked for waits meanwhile.
const ROUNDS_TIME: Duration = Duration::from_millis(500);

/// `main` must be a child of ours that was not waited for, and leads its session.
pub(super) fn kill_with_descendants(main: libc::pid_t) {
    let begun = Instant::now();
    let mut family = Family::of(main);
    signal(main, libc::SIGSTOP);
    for _ in 0..ROUNDS_MAX {
        let known = family.members.len();
        family.add_relatives(main, &processes());
        if family.members.len() == known || begun.elapsed() > ROUNDS_TIME {
            break;
        }
        family.members[known..]
            .iter()
            .for_each(|pid| signal(*pid, libc::SIGSTOP));
    }
    sys::kill_group(main);
    // From the youngest on: none of them may see its parent die and be told so.
    family
        .members
        .iter()
        .rev()
        .for_each(|pid| signal(*pid, libc::SIGKILL));
}

/// That it is gone already is fine.
fn signal(pid: libc::pid_t, signal: libc::c_int) {
    let _ = sys::signal(pid, signal);
}

/// A command and what belongs to it, in the order in which it was found.
struct Family {
    members: Vec<libc::pid_t>,
    known: HashSet<libc::pid_t>,
}

impl Family {
    fn of(main: libc::pid_t) -> Self {
        Self {
            members: vec![main],
            known: HashSet::from([main]),
        }
    }

    fn add(&mut self, pid: libc::pid_t) {
        if self.known.insert(pid) {
            self.members.push(pid);
        }
    }

    /// Looks at each process once.
    fn add_relatives(&mut self, session: libc::pid_t, processes: &[Process]) {
        let mut children: HashMap<libc::pid_t, Vec<libc::pid_t>> = HashMap::new();
        for process in processes {
            children
                .entry(process.parent)
                .or_default()
                .push(process.pid);
            if process.session == session {
                self.add(process.pid);
            }
        }
        let mut next = 0;
        while let Some(parent) = self.members.get(next) {
            for child in children.remove(parent).unwrap_or_default() {
                self.add(child);
            }
            next += 1;
        }
    }
}

/// What /proc says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: libc::pid_t,
    parent: libc::pid_t,
    session: libc::pid_t,
}

fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<libc::pid_t>().ok());
    // One that has gone meanwhile has no such file.
    pids.filter_map(|pid| parse(&fs::read(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// `pid (name) state parent group session ...`; the name may hold anything, brackets too.
fn parse(stat: &[u8]) -> Option<Process> {
    let text = String::from_utf8_lossy(stat);
    let (head, rest) = text.rsplit_once(')')?;
    let pid = head.split(' ').next()?.parse().ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process {
        pid,
        parent,
        session,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(
            parse(b"12 (a) b (c) S 3 4 5 0 -1 1"),
            Some(Process {
                pid: 12,
                parent: 3,
                session: 5
            })
        );
        assert_eq!(parse(b"12 (a) S 3"), None);
        assert_eq!(parse(b""), None);
        let own = processes()
            .into_iter()
            .find(|process| process.pid.unsigned_abs() == std::process::id());
        assert!(own.is_some_and(|own| own.parent > 0));
    }

    #[test]
    fn a_family_is_a_session_and_all_who_descend() {
        let process = |pid, parent, session| Process {
            pid,
            parent,
            session,
        };
        // 10 leads; 11 is its child, 12 a grandchild in a session of its own, 13 an orphan of the session, 20 a stranger.
        let all = [
            process(12, 11, 12),
            process(11, 10, 10),
            process(10, 1, 10),
            process(13, 1, 10),
            process(20, 1, 20),
            process(21, 20, 20),
        ];
        let mut family = Family::of(10);
        family.add_relatives(10, &all);
        family.members.sort_unstable();
        assert_eq!(family.members, [10, 11, 12, 13]);
    }

    #[test]
    fn a_family_of_ten_thousand_is_found_in_a_moment() {
        const COUNT: libc::pid_t = 10_000;
        // The worst order: each parent comes after its child, and each has a session of its own.
        let all: Vec<Process> = (11..10 + COUNT)
            .rev()
            .map(|pid| Process {
                pid,
                parent: pid - 1,
                session: pid,
            })
            .collect();
        let mut family = Family::of(10);
        let begun = Instant::now();
        family.add_relatives(10, &all);
        assert_eq!(family.members.len(), COUNT.unsigned_abs() as usize);
        // In proportion to the square this takes minutes.
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
