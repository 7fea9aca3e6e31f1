//! The newest part of a serial console.
//!
//! The machine appends to `console.log` through a descriptor of its own. What is older than may be kept is cut out of the
//! file in place, as a hole: the file gives its memory back, and every byte stays at the offset where it was written. So
//! nothing is copied, a full file system does not stop the cut, no byte that arrives meanwhile is lost, and an offset
//! says for ever how much was written before it. The file holds no more than the limit, plus what comes within one
//! [`CHECK_EVERY`].
//!
//! A file system without holes has the log emptied instead: the offsets go on from there, and what was kept is lost.
//!
//! A reader and a cut exclude each other by the lock of [`Marks`]. The log is opened once, when its machine gets an owner:
//! its last bytes can be read when the machine and its directory are gone, and what a machine appends to a log whose name
//! is gone is cut as before, since no limit of the file system would be seen to be reached by it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use super::growth::{Growth, watch};
use crate::sync::lock;

/// How often a console is looked at. A machine under emulation writes about a megabyte in that time at most.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(500);
/// What a follower reads at once.
const FOLLOW_MAX_BYTES: usize = 64 << 10;
/// The file's name.
pub(super) const LOG: &str = "console.log";
/// What of a console is part of an error message.
const TAIL_LINES: usize = 40;
/// Where those lines are looked for.
const TAIL_BYTES: u64 = 64 << 10;
/// What a hole begins and ends at: memory is given back in whole pages.
const PAGE_BYTES: u64 = 4096;

/// The console's file.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    log: Arc<File>,
    max_bytes: u64,
    marks: Arc<Mutex<Marks>>,
}

/// Where the log's bytes stand among all that were ever written.
#[derive(Debug, Default)]
struct Marks {
    /// Offset in the log of the oldest byte that is kept, as far as this process knows.
    kept_from: u64,
    /// Bytes that were there when the log was emptied, where holes are not possible.
    emptied: u64,
}

impl Marks {
    /// Offset in the log of the oldest byte that is kept; another process may have cut before.
    fn oldest(&self, log: &File) -> io::Result<u64> {
        match lseek(log, 0, Whence::SeekData) {
            Ok(offset) => Ok(self.kept_from.max(u64::try_from(offset).unwrap_or(0))),
            // There is nothing but a hole, or nothing at all.
            Err(Errno::ENXIO) => Ok(log.metadata()?.len()),
            // A file system without holes has data from the beginning.
            Err(Errno::EINVAL) => Ok(self.kept_from),
            Err(error) => Err(error.into()),
        }
    }
}

impl Console {
    /// That of a machine that is about to be started.
    pub(super) fn open(log: &Path, max_bytes: u64) -> io::Result<Self> {
        open(log).map(|log| Self::of(log, max_bytes))
    }

    /// That of a machine that runs already. Where the name of its log is gone, the process still has the file.
    ///
    /// # Errors
    /// When neither leads to it.
    pub(super) fn of_process(log: &Path, pid: u32, max_bytes: u64) -> io::Result<Self> {
        let log = match open(log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                open_by_process(log, pid)?.ok_or(error)?
            }
            opened => opened?,
        };
        Ok(Self::of(log, max_bytes))
    }

    fn of(log: File, max_bytes: u64) -> Self {
        Self {
            log: Arc::new(log),
            max_bytes,
            marks: Arc::default(),
        }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        lock(&self.marks)
    }

    #[cfg(test)]
    pub(super) fn is_cut(&self) -> bool {
        self.marks().kept_from > 0
    }

    /// Cuts the older part off when there is too much.
    pub(super) fn trim(&self) -> io::Result<()> {
        let mut marks = self.marks();
        let log = &*self.log;
        let length = log.metadata()?.len();
        if length <= self.max_bytes {
            return Ok(());
        }
        // A machine that was broken out of can have cut its log shorter than where we had.
        let kept = length.saturating_sub(marks.oldest(log)?);
        if kept <= self.max_bytes {
            return Ok(());
        }
        // A quarter of the limit is free afterwards, so that not every look cuts.
        let cut = length - self.max_bytes / 4 * 3;
        let cut = cut - cut % PAGE_BYTES.min(self.max_bytes.div_ceil(4));
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(log, hole, 0, i64::try_from(cut).unwrap_or(i64::MAX)) {
            Ok(()) => marks.kept_from = cut,
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                // The machine appends, so its next byte comes at the new end.
                log.set_len(0)?;
                marks.emptied += length;
                marks.kept_from = 0;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Follows it, from the oldest byte that is kept.
    pub(crate) fn follow(&self) -> ConsoleFollower {
        ConsoleFollower {
            console: self.clone(),
            position: 0,
        }
    }

    /// What is kept, the newest bytes last.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        self.newest(self.max_bytes)
    }

    fn newest(&self, max_bytes: u64) -> io::Result<Vec<u8>> {
        let marks = self.marks();
        let log = &*self.log;
        let length = log.metadata()?.len();
        let from = marks.oldest(log)?.max(length.saturating_sub(max_bytes));
        read_at_most(log, from, length.saturating_sub(from))
    }

    /// The last lines, for a message.
    pub(crate) fn last_lines(&self) -> String {
        let bytes = self.newest(TAIL_BYTES.min(self.max_bytes));
        let bytes = bytes.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

fn open(log: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(log)
}

/// The log that a process has open under this name, or had until that was removed or moved.
fn open_by_process(log: &Path, pid: u32) -> io::Result<Option<File>> {
    /// What the kernel puts behind a name that is gone.
    const GONE: &[u8] = b" (deleted)";
    let machine = log.parent().and_then(Path::file_name);
    let wanted = Path::new(machine.unwrap_or_default()).join(LOG);
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let descriptor = entry?.path();
        // Some are closed meanwhile.
        let Ok(target) = fs::read_link(&descriptor) else {
            continue;
        };
        let bytes = target.as_os_str().as_bytes();
        let name = bytes.strip_suffix(GONE).unwrap_or(bytes);
        if Path::new(OsStr::from_bytes(name)).ends_with(&wanted) {
            let file = open(&descriptor)?;
            if file.metadata()?.is_file() {
                return Ok(Some(file));
            }
        }
    }
    Ok(None)
}

/// Keeps the console of a machine that has no owner within its limit; `pid` is its process.
///
/// # Errors
/// When its file cannot be read or cut.
pub(crate) fn trim_console(machine: &Path, pid: u32, max_bytes: u64) -> io::Result<()> {
    Console::of_process(&machine.join(LOG), pid, max_bytes)?.trim()
}

/// Keeps a console within its limit, and complains only once where it cannot.
#[derive(Debug)]
pub(super) struct Trimmer {
    console: Console,
    has_complained: bool,
}

impl Trimmer {
    pub(super) fn new(console: Console) -> Self {
        Self {
            console,
            has_complained: false,
        }
    }

    /// Trims it. Answers the reason the first time that it cannot.
    pub(super) fn trim(&mut self) -> Option<io::Error> {
        let error = self.console.trim().err()?;
        (!std::mem::replace(&mut self.has_complained, true)).then_some(error)
    }
}

/// Reads a console on and on.
#[derive(Debug)]
pub struct ConsoleFollower {
    console: Console,
    /// How much of what was ever written has been read, or missed.
    position: u64,
}

impl ConsoleFollower {
    /// What came since the last call, at most [`FOLLOW_MAX_BYTES`]; nothing when nothing came. What was cut off before it
    /// was read is missed. It blocks for the reading of a file.
    ///
    /// # Errors
    /// When the file cannot be read. That the machine is gone is no such reason.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let (marks, log) = (self.console.marks(), &*self.console.log);
        let oldest = marks.oldest(log)?;
        let from = self.position.saturating_sub(marks.emptied).max(oldest);
        let bytes = read_at_most(log, from, FOLLOW_MAX_BYTES as u64)?;
        self.position = marks.emptied + from + bytes.len() as u64;
        Ok(bytes)
    }

    /// Notices that more is written from now on. It costs nothing while nothing is written.
    ///
    /// # Errors
    /// When the kernel watches no more files for this user.
    pub fn growth(&self) -> io::Result<Growth> {
        // The file itself, whatever its name leads to by now.
        let log = format!("/proc/self/fd/{}", self.console.log.as_raw_fd());
        watch(Path::new(&log))
    }
}

/// So many bytes from an offset, or as many as there are.
fn read_at_most(file: &File, from: u64, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(max_bytes).unwrap_or(usize::MAX)];
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], from + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
#[path = "console_full_tests.rs"]
mod full_tests;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// A console, and what its machine appends to.
    fn console(path: &Path, max_bytes: u64) -> io::Result<(Console, File)> {
        let machine = OpenOptions::new().append(true).create(true).open(path)?;
        Ok((Console::open(path, max_bytes)?, machine))
    }

    fn used_bytes(console: &Console) -> io::Result<u64> {
        Ok(console.log.metadata()?.blocks() * 512)
    }

    #[test]
    fn a_console_whose_name_is_gone_is_cut_and_read_as_before() -> io::Result<()> {
        const MAX: u64 = 64 << 10;
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("vm/m1");
        fs::create_dir_all(&dir)?;
        let path = dir.join(LOG);
        let (console, mut machine) = console(&path, MAX)?;
        let mut trimmer = Trimmer::new(console.clone());
        machine.write_all(b"before")?;
        fs::remove_dir_all(folder.path().join("vm"))?;
        for _ in 0..20 {
            machine.write_all(&[b'x'; MAX as usize])?;
            assert!(trimmer.trim().is_none());
            let used = used_bytes(&console)?;
            assert!(used <= MAX + PAGE_BYTES, "{used} bytes are used");
        }
        assert!(console.follow().read()?.ends_with(b"x"));
        // A service and a guardian that come later find it by the process that has it open: here that is this one.
        let me = std::process::id();
        let later = Console::of_process(&path, me, MAX)?;
        assert!(later.read()?.ends_with(b"x"));
        machine.write_all(&[b'y'; 2 * MAX as usize])?;
        trim_console(&dir, me, MAX)?;
        assert!(used_bytes(&console)? <= MAX + PAGE_BYTES);
        let another = folder.path().join("vm/m2").join(LOG);
        let missing = Console::of_process(&another, me, MAX).map_err(|error| error.kind());
        assert_eq!(missing.err(), Some(io::ErrorKind::NotFound));
        Ok(())
    }

    #[test]
    fn a_log_that_its_machine_cuts_short_is_read_and_cut_all_the_same() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (console, mut machine) = console(&folder.path().join(LOG), 1000)?;
        machine.write_all(&[b'x'; 20_000])?;
        console.trim()?;
        assert!(console.is_cut());
        machine.set_len(17_000)?;
        console.trim()?;
        console.read()?;
        machine.write_all(&[b'y'; 50_000])?;
        console.trim()?;
        assert!(console.read()?.ends_with(b"y"));
        Ok(())
    }

    #[test]
    fn the_newest_part_is_kept_and_no_more() -> io::Result<()> {
        const MAX: u64 = 1000;
        let folder = tempfile::tempdir()?;
        let (console, mut machine) = console(&folder.path().join("console.log"), MAX)?;
        let mut written = Vec::new();
        for line in 0..500 {
            let line = format!("line {line}\r\n");
            machine.write_all(line.as_bytes())?;
            written.extend(line.into_bytes());
            console.trim()?;
            let kept = console.read()?;
            assert!(kept.len() as u64 <= MAX);
            assert!(
                written.ends_with(&kept),
                "what is kept is the newest part, without a gap"
            );
        }
        assert!(console.read()?.len() as u64 >= MAX / 2);
        assert!(console.last_lines().ends_with("line 499"));
        Ok(())
    }

    #[test]
    fn a_follower_reads_every_byte_and_the_last_ones_after_the_end() -> io::Result<()> {
        const MAX: u64 = 1000;
        let folder = tempfile::tempdir()?;
        let (console, mut machine) = console(&folder.path().join("console.log"), MAX)?;
        let mut written = b"before\r\n".to_vec();
        machine.write_all(&written)?;
        let mut follower = console.follow();
        let mut read = follower.read()?;
        for line in 0..500 {
            let line = format!("line {line}\r\n");
            machine.write_all(line.as_bytes())?;
            written.extend(line.into_bytes());
            console.trim()?;
            // Every few lines: some are cut off before they are read.
            if written.len().is_multiple_of(3) {
                read.extend(follower.read()?);
            }
        }
        read.extend(follower.read()?);
        assert!(follower.read()?.is_empty());
        machine.write_all(b"the end")?;
        folder.close()?;
        read.extend(follower.read()?);
        written.extend(b"the end");
        assert_eq!(read, written);
        Ok(())
    }

    #[test]
    fn a_follower_that_is_too_slow_misses_the_oldest() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (console, mut machine) = console(&folder.path().join("console.log"), 100)?;
        let mut follower = console.follow();
        for byte in b'a'..=b'z' {
            machine.write_all(&[byte; 60])?;
            console.trim()?;
        }
        machine.write_all(b"now")?;
        let read = String::from_utf8_lossy(&follower.read()?).into_owned();
        let newest = read.strip_suffix("now").expect("the newest comes last");
        assert!((60..=160).contains(&newest.len()) && newest.ends_with(&"z".repeat(60)));
        assert!(!newest.contains('\0'), "no byte of what was cut off");
        Ok(())
    }

    #[test]
    fn a_cut_needs_no_room_and_gives_memory_back() -> io::Result<()> {
        const MAX: u64 = 64 << 10;
        let folder = tempfile::tempdir()?;
        let (console, mut machine) = console(&folder.path().join("console.log"), MAX)?;
        for piece in b'a'..=b'z' {
            machine.write_all(&[piece; MAX as usize / 2])?;
            console.trim()?;
            let used = used_bytes(&console)?;
            assert!(used <= MAX + PAGE_BYTES, "{used} bytes are used");
        }
        assert_eq!(
            fs::read_dir(folder.path())?.count(),
            1,
            "nothing is copied, so a full file system does not stop it"
        );
        // A service that comes later knows no more than the file.
        let later = Console::open(&folder.path().join("console.log"), MAX)?;
        for kept in [console.read()?, later.read()?, later.follow().read()?] {
            assert!(kept.len() as u64 >= MAX / 2 && kept.len() as u64 <= MAX);
            assert!(kept.ends_with(b"z") && !kept.contains(&0));
        }
        Ok(())
    }

    #[test]
    fn no_byte_is_lost_or_read_twice_while_it_is_cut() -> io::Result<()> {
        const LINES: usize = 20_000;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("console.log");
        let (console, mut machine) = console(&path, 256 << 10)?;
        let mut follower = console.follow();
        let (begin, begun) = std::sync::mpsc::sync_channel::<usize>(64);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for line in 0..LINES {
                    writeln!(machine, "{line:08}").expect("it is written");
                    begin.send(line).expect("the reader is there");
                }
            });
            scope.spawn(|| {
                while Arc::strong_count(&console.marks) > 1 {
                    console.trim().expect("it is cut");
                    let kept = console.read().expect("it is read");
                    assert!(!kept.contains(&0), "a hole was read");
                }
            });
            let mut read = Vec::new();
            for line in begun {
                if line.is_multiple_of(50) {
                    read.extend(follower.read().expect("it is read"));
                }
            }
            loop {
                let more = follower.read().expect("it is read");
                if more.is_empty() {
                    break;
                }
                read.extend(more);
            }
            drop(follower);
            let expected: String = (0..LINES).map(|line| format!("{line:08}\n")).collect();
            assert!(read == expected.as_bytes(), "every line, once");
        });
        Ok(())
    }
}
