//! The control groups that processes run in, one each.
//!
//! ```text
//! fresh ──taken──► a process's ──it has ended──► used ──empty──► taken again
//! ```
//!
//! - A few are made before a template is saved, and their directories are held open: no clone's first commands pay for
//!   their making.
//! - What a process has left in the background stays in its group, which is taken again only when it is empty. It goes
//!   on until it keeps a command from starting: then there is no room, and [`Groups::make_room`] kills all that is left.
//! - One process, and all of them together, have fewer processes than the guest can have: the agent, process 1 and the
//!   kernel can always start theirs.
//! - Where the kernel has no control groups, or one of the controllers is missing, there are none of these: the descendants of a
//!   process are looked up instead.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};

use crate::cgroups;
use crate::failure::Doing as _;
use crate::sys;

/// Made by `prepare`.
const FRESH: usize = 8;
/// Used ones that are looked at before another one is made.
const LOOKS: usize = 4;
/// What the guest can have: of processes and threads together, and of ids for them.
const PROCESS_LIMITS: [&str; 2] = ["/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"];
const MEMORY: &str = "/proc/meminfo";
/// Of the memory that is there for processes, what all of them together may use. With all of it the kernel itself would
/// run out first, and look for pages to give up for a minute before it ends a process.
const MEMORY_PERCENT: u64 = 90;
/// Where neither can be read.
const PROCESSES_MAX: u64 = 1024;
/// How long killed processes are waited for before a command is tried once more. Everything else that the agent is
/// asked for waits meanwhile.
const ROOM_TIME: Duration = Duration::from_secs(8);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One process's own group.
#[derive(Debug)]
pub(super) struct Group {
    number: u32,
    directory: File,
}

impl Group {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Kills all that is in it, also what is being started.
    pub(super) fn kill(&self) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, c"cgroup.kill", flags, Mode::empty())?;
        rustix::io::write(file, b"1")?;
        Ok(())
    }
}

pub(super) struct Groups {
    /// The parent's directory. `None`: there are no groups.
    parent: Option<PathBuf>,
    fresh: Vec<Group>,
    used: VecDeque<u32>,
    next: u32,
    /// As many processes as the guest can have.
    processes_max: u64,
}

impl Groups {
    /// Kills what still runs in the groups of an agent before this one.
    pub(super) fn open() -> Self {
        Self::at(Path::new(cgroups::PROCESSES))
    }

    fn at(parent: &Path) -> Self {
        let allowed = fs::read_to_string(parent.join(cgroups::SUBTREE_CONTROL)).unwrap_or_default();
        let allowed: Vec<&str> = allowed.split_ascii_whitespace().collect();
        let is_complete = cgroups::CONTROLLERS
            .iter()
            .all(|controller| allowed.contains(controller));
        let mut groups = Self {
            parent: is_complete.then(|| parent.to_owned()),
            fresh: Vec::new(),
            used: VecDeque::new(),
            next: 1,
            processes_max: processes_max(),
        };
        groups.take_over();
        groups.limit_processes();
        groups.limit_memory();
        groups
    }

    pub(super) fn are_there(&self) -> bool {
        self.parent.is_some()
    }

    fn take_over(&mut self) {
        let Some(parent) = &self.parent else {
            return;
        };
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let mut numbers: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        for number in &numbers {
            let kill = parent.join(number.to_string()).join("cgroup.kill");
            tell(&kill, fs::write(&kill, "1"));
        }
        self.next = numbers.last().map_or(1, |last| last + 1);
        self.used.extend(numbers);
    }

    /// All commands together, with what they have left in the background: an eighth is for the agent and the kernel.
    fn limit_processes(&self) {
        if let Some(parent) = &self.parent {
            let file = parent.join("pids.max");
            let count = self.processes_max - self.processes_max / 8;
            tell(&file, fs::write(&file, count.to_string()));
        }
    }

    /// All processes together. A group is ended, not slowed down, by what it wants beyond that: memory that nothing can
    /// be written out of would stay as scarce for as long as it runs.
    pub(super) fn limit_memory(&self) {
        if let Some(parent) = &self.parent {
            let held = fs::read_to_string(parent.join("memory.current")).unwrap_or_default();
            let held_bytes: u64 = held.trim().parse().unwrap_or(0);
            let bytes = (available_bytes() + held_bytes) / 100 * MEMORY_PERCENT;
            let file = parent.join("memory.max");
            tell(&file, fs::write(&file, bytes.to_string()));
        }
    }

    /// Makes those that the first commands of a clone run in.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        while self.parent.is_some() && self.fresh.len() < FRESH {
            let group = self.make()?;
            self.fresh.insert(0, group);
        }
        Ok(())
    }

    /// A group without a process in it. `None`: there are no groups, or none more.
    pub(super) fn take(&mut self) -> Option<Group> {
        self.parent.as_ref()?;
        if let Some(group) = self.fresh.pop().or_else(|| self.take_used()) {
            return Some(group);
        }
        match self.make() {
            Ok(group) => Some(group),
            Err(error) => {
                eprintln!("vmint-agent: make a control group: {error}");
                None
            }
        }
    }

    /// Its process has ended; others of it may be there.
    pub(super) fn give_back(&mut self, group: Group) {
        self.used.push_back(group.number);
    }

    /// Kills what commands that have ended have left, and waits for its end, but not for long. False: there was nothing.
    pub(super) fn make_room(&self) -> bool {
        let directories = self.used.iter().filter_map(|it| self.directory(*it));
        let crowded: Vec<PathBuf> = directories.filter(|it| !is_empty(it)).collect();
        for directory in &crowded {
            let kill = directory.join("cgroup.kill");
            tell(&kill, fs::write(&kill, "1"));
        }
        let give_up = Instant::now() + ROOM_TIME;
        while crowded.iter().any(|it| holds_processes(it)) && Instant::now() < give_up {
            std::thread::sleep(LOOK_AGAIN);
        }
        !crowded.is_empty()
    }

    fn take_used(&mut self) -> Option<Group> {
        for _ in 0..LOOKS {
            let number = self.used.pop_front()?;
            let directory = self.directory(number)?;
            match is_empty(&directory).then(|| open(&directory)) {
                Some(Ok(directory)) => return Some(Group { number, directory }),
                // It is gone: the guest's root may do that.
                Some(Err(_)) => {}
                None if directory.exists() => self.used.push_back(number),
                None => {}
            }
        }
        None
    }

    fn make(&mut self) -> io::Result<Group> {
        let number = self.next;
        let Some(directory) = self.directory(number) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.next = number.saturating_add(1);
        fs::create_dir(&directory)?;
        // One command cannot keep the others from starting.
        let count = self.processes_max / 4 * 3;
        fs::write(directory.join("pids.max"), count.to_string())?;
        // A command that has lost one of its processes for want of memory is no use.
        fs::write(directory.join("memory.oom.group"), "1")?;
        let directory = open(&directory)?;
        Ok(Group { number, directory })
    }

    fn directory(&self, number: u32) -> Option<PathBuf> {
        Some(self.parent.as_ref()?.join(number.to_string()))
    }
}

fn open(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(directory)
}

/// Whether no process of the group runs.
fn is_empty(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 0")
}

/// One that has ended has its id until it was waited for.
fn holds_processes(group: &Path) -> bool {
    let count = fs::read_to_string(group.join("pids.current")).unwrap_or_default();
    count.trim().parse().is_ok_and(|count: u64| count > 0)
}

/// The least of what the kernel says: in a big guest there are fewer ids than threads could be.
fn processes_max() -> u64 {
    let texts = PROCESS_LIMITS.map(|file| fs::read_to_string(file).unwrap_or_default());
    least(&texts).unwrap_or(PROCESSES_MAX)
}

fn least(texts: &[String]) -> Option<u64> {
    texts.iter().flat_map(|text| text.trim().parse()).min()
}

/// What the kernel could give to processes now, of all memory where it does not say.
fn available_bytes() -> u64 {
    let text = fs::read_to_string(MEMORY).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib: Option<u64> = number.and_then(|number| number.trim().parse().ok());
    kib.map_or_else(sys::memory_bytes, |kib| kib * 1024)
}

/// Not being able to is not worth an agent that does not start.
fn tell(file: &Path, written: io::Result<()>) {
    if let Err(failure) = written.doing(|| format!("write {}", file.display())) {
        eprintln!("vmint-agent: {failure}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::Folder;

    /// What the kernel shows, as plain files.
    fn tree(folder: &Folder, controllers: &str) {
        fs::write(folder.path(cgroups::SUBTREE_CONTROL), controllers).expect("room");
    }

    fn populated(folder: &Folder, number: u32, count: u32) {
        let events = format!("populated {count}\nfrozen 0\n");
        fs::write(folder.path(&format!("{number}/cgroup.events")), events).expect("room");
    }

    fn numbers(groups: &mut Groups, count: usize) -> Vec<u32> {
        let taken = (0..count).map(|_| groups.take().expect("a group"));
        let taken: Vec<Group> = taken.collect();
        let numbers = taken.iter().map(|group| group.number).collect();
        taken.into_iter().for_each(|group| groups.give_back(group));
        numbers
    }

    #[test]
    fn without_all_controllers_there_are_none() {
        let folder = Folder::new("groups-none");
        for controllers in ["", "cpu pids\n", "memory cpu io\n"] {
            tree(&folder, controllers);
            let mut groups = Groups::at(Path::new(&folder.path("")));
            assert!(!groups.are_there());
            groups.prepare().expect("nothing to do");
            assert!(groups.take().is_none());
        }
    }

    #[test]
    fn prepared_ones_come_first_and_used_ones_again_when_they_are_empty() {
        let folder = Folder::new("groups-used");
        tree(&folder, "cpu memory pids\n");
        let mut groups = Groups::at(Path::new(&folder.path("")));
        assert!(groups.are_there());
        groups.prepare().expect("room");
        groups.prepare().expect("nothing to do");
        assert_eq!(numbers(&mut groups, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
        for number in 1..=8 {
            populated(&folder, number, u32::from(number != 3));
        }
        assert_eq!(numbers(&mut groups, 1), [3]);
        fs::remove_dir_all(folder.path("3")).expect("it is there");
        populated(&folder, 5, 0);
        // One that has gone is no group, and all others but one are not empty.
        assert_eq!(numbers(&mut groups, 2), [5, 9]);
        let limits = |name: &str| fs::read_to_string(folder.path(name)).expect("there");
        let count = |name: &str| -> u64 { limits(name).parse().expect("a number") };
        let most = processes_max();
        assert_eq!(count("9/pids.max"), most / 4 * 3);
        // Two that have left all they may cannot have all that there is.
        assert_eq!(count("pids.max"), most - most / 8);
        assert_eq!(limits("9/memory.oom.group"), "1");
        let bytes: u64 = limits("memory.max").parse().expect("a number");
        assert!(bytes > 1 << 20 && bytes < sys::memory_bytes());
        assert_ne!(available_bytes(), sys::memory_bytes());
        // What processes hold now is theirs too.
        fs::write(folder.path("memory.current"), format!("{}\n", 1_u64 << 50)).expect("room");
        groups.limit_memory();
        let bytes: u64 = limits("memory.max").parse().expect("a number");
        assert!(bytes > (1 << 50) / 100 * 90);
    }

    #[test]
    fn what_an_agent_before_has_left_is_killed_and_used() {
        let folder = Folder::new("groups-left");
        tree(&folder, "memory pids cpu\n");
        let mut groups = Groups::at(Path::new(&folder.path("")));
        groups.prepare().expect("room");
        let mut groups = Groups::at(Path::new(&folder.path("")));
        for number in 1..=8 {
            let kill = folder.path(&format!("{number}/cgroup.kill"));
            assert_eq!(fs::read(kill).expect("there"), b"1");
        }
        populated(&folder, 1, 0);
        assert_eq!(numbers(&mut groups, 2), [1, 9]);
    }
    #[test]
    fn there_are_as_many_processes_as_the_least_limit_says() {
        let texts = |texts: [&str; 2]| texts.map(str::to_owned);
        assert_eq!(least(&texts(["100000\n", "32768\n"])), Some(32768));
        assert_eq!(least(&texts(["1900\n", "32768\n"])), Some(1900));
        assert_eq!(least(&texts(["", "32768\n"])), Some(32768));
        assert_eq!(least(&texts(["", "x"])), None);
        for file in PROCESS_LIMITS {
            let text = fs::read_to_string(file).expect("every kernel says so");
            assert!(processes_max() <= text.trim().parse().expect("a number"));
        }
    }

    #[test]
    fn room_is_made_by_killing_what_commands_that_have_ended_have_left() {
        let folder = Folder::new("groups-room");
        tree(&folder, "cpu memory pids\n");
        let mut groups = Groups::at(Path::new(&folder.path("")));
        groups.prepare().expect("room");
        let running = groups.take().expect("a group");
        let mut give_back = |number: u32, count: u32| {
            let group = groups.take().expect("a group");
            assert_eq!(group.number, number);
            populated(&folder, number, count);
            groups.give_back(group);
        };
        give_back(2, 0);
        let killed = |number: u32| folder.path(&format!("{number}/cgroup.kill"));
        let was_killed = |number: u32| fs::read(killed(number)).is_ok();
        populated(&folder, running.number, 1);
        give_back(3, 1);
        give_back(4, 1);
        fs::write(folder.path("3/pids.current"), "0\n").expect("room");
        assert!(groups.make_room());
        assert_eq!([1, 2, 3, 4].map(was_killed), [false, false, true, true]);
        populated(&folder, 3, 0);
        populated(&folder, 4, 0);
        assert!(!groups.make_room());
    }
}
