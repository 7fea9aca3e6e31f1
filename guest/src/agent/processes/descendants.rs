//! Ending a process with everything that descends from it, and nothing else, where the kernel has no control groups.
//!
//! Other commands, and what earlier ones have left in the background, are children of ours or of process 1 just the same.
//! So what belongs to the command is looked up: whoever is in its session (a process that left the group is still in
//! that), and whoever has one of them as an ancestor.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::sys;

/// A stopped process makes no more children, so that each round finds only what was made during the one before.
const ROUNDS_MAX: u32 = 32;
/// No more rounds are begun after this long: everything else that the agent is asked for waits meanwhile.
const ROUNDS_TIME: Duration = Duration::from_millis(500);

/// `main` leads its session, and is there: a child of ours that was not waited for, or one that was just seen.
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

/// A process as another agent can recognize it: a process id is given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Born {
    pid: libc::pid_t,
    /// In the kernel's ticks, since it was booted.
    at_ticks: u64,
}

impl Born {
    /// A child of ours that has just been started. `None`: there is no /proc.
    pub(super) fn of(pid: libc::pid_t) -> Option<Self> {
        let at_ticks = look_at(pid)?.born_ticks;
        Some(Self { pid, at_ticks })
    }

    /// Kills it with its descendants if it is still there: it leads its session, and no other has its start and its id.
    pub(super) fn kill_if_alive(self) {
        let found = look_at(self.pid);
        if found.is_some_and(|it| it.session == self.pid && it.born_ticks == self.at_ticks) {
            kill_with_descendants(self.pid);
        }
    }
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
    born_ticks: u64,
}

/// `None`: it has gone.
fn look_at(pid: libc::pid_t) -> Option<Process> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<libc::pid_t>().ok());
    pids.filter_map(look_at).collect()
}

/// Fields between the session (6) and the start (22).
const BORN_AFTER_SESSION: usize = 15;

/// `pid (name) state parent group session ...`; the name may hold anything, brackets too.
fn parse(stat: &[u8]) -> Option<Process> {
    let text = String::from_utf8_lossy(stat);
    let (head, rest) = text.rsplit_once(')')?;
    let pid = head.split(' ').next()?.parse().ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let born_ticks = fields.nth(BORN_AFTER_SESSION)?.parse().ok()?;
    Some(Process {
        pid,
        parent,
        session,
        born_ticks,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(
            parse(b"12 (a) b (c) S 3 4 5 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 4711 99 1"),
            Some(Process {
                pid: 12,
                parent: 3,
                session: 5,
                born_ticks: 4711
            })
        );
        assert_eq!(parse(b"12 (a) S 3"), None);
        assert_eq!(parse(b"12 (a) S 3 4 5 0 -1 1"), None);
        assert_eq!(parse(b""), None);
        let own = processes()
            .into_iter()
            .find(|process| process.pid.unsigned_abs() == std::process::id());
        assert!(own.is_some_and(|own| own.parent > 0));
    }

    /// How a process ends that is looked for with a start so much later than its own, and is told to end after that.
    fn end_of_one_that_is_looked_for(later_ticks: u64) -> sys::Ended {
        let nowhere = fs::File::open("/dev/null").expect("every Linux has it");
        let plan = sys::SpawnPlan {
            files: &[c"/bin/sleep".to_owned()],
            argv: &[c"sleep", c"100"],
            env: &[],
            cwd: None,
            streams: [nowhere.as_fd(); 3],
            user: None,
            terminal: false,
            group: None,
        };
        let (pid, _end) = sys::spawn(&plan).expect("it starts");
        let born = Born::of(pid).expect("it runs");
        let at_ticks = born.at_ticks + later_ticks;
        Born { at_ticks, ..born }.kill_if_alive();
        signal(pid, libc::SIGTERM);
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(ended) = sys::reap_child(pid) {
                assert_eq!(Born::of(pid), None);
                return ended;
            }
            assert!(Instant::now() < give_up);
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_the_very_process_is_killed() {
        let ended = end_of_one_that_is_looked_for(1);
        assert_eq!(ended, sys::Ended::Signalled(libc::SIGTERM));
        let ended = end_of_one_that_is_looked_for(0);
        assert_eq!(ended, sys::Ended::Signalled(libc::SIGKILL));
    }

    #[test]
    fn a_family_is_a_session_and_all_who_descend() {
        let process = |pid, parent, session| Process {
            pid,
            parent,
            session,
            born_ticks: 1,
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
                born_ticks: 1,
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
