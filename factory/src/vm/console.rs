//! The newest part of a serial console.
//!
//! The machine appends to `console.log` through a descriptor of its own. When that has grown to half of what may be
//! kept, its content moves to `console.old` and it is made empty again: the two together hold the newest part and
//! never more than the limit, plus what comes within one [`CHECK_EVERY`]. Bytes written between the copy and the
//! cut are lost; nobody could keep up with such a flood anyway.
//!
//! Who follows a console counts its bytes: what was ever written is what was cut off and what is in the log. The log is
//! opened once, so its last bytes can be read when the machine and its directory are gone.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::rights::write_own;
use crate::sync::lock;

/// How often a console is looked at. A machine under emulation writes about a megabyte in that time at most.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(500);
/// What a follower reads at once from the log; what was cut off comes on top, and is no more than half of what is kept.
const FOLLOW_MAX_BYTES: usize = 64 << 10;
/// The file's name.
pub(super) const LOG: &str = "console.log";
/// What of a console is part of an error message.
const TAIL_LINES: usize = 40;

/// The console's files.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    log: PathBuf,
    old: PathBuf,
    max_bytes: u64,
    /// Bytes that were ever cut off the log. Held while it is cut, so that nobody reads in between.
    cut_bytes: Arc<Mutex<u64>>,
}

impl Console {
    pub(super) fn new(log: PathBuf, max_bytes: u64) -> Self {
        let old = log.with_extension("old");
        Self {
            log,
            old,
            max_bytes,
            cut_bytes: Arc::default(),
        }
    }

    /// Moves the older part away when there is too much.
    pub(super) fn trim(&self) -> io::Result<()> {
        let half = self.max_bytes / 2;
        let mut cut_bytes = lock(&self.cut_bytes);
        if fs::metadata(&self.log)?.len() <= half {
            return Ok(());
        }
        let newest = tail(&self.log, half)?;
        let fresh = self.old.with_extension("new");
        write_own(&fresh, &newest)?;
        fs::rename(&fresh, &self.old)?;
        let log = OpenOptions::new().write(true).open(&self.log)?;
        let length = log.metadata()?.len();
        // The machine appends, so its next byte comes at the new end.
        log.set_len(0)?;
        *cut_bytes += length;
        Ok(())
    }

    /// Follows it, from the oldest byte that is kept.
    pub(crate) fn follow(&self) -> io::Result<ConsoleFollower> {
        Ok(ConsoleFollower {
            log: fs::File::open(&self.log)?,
            console: self.clone(),
            read_bytes: 0,
        })
    }

    /// What is kept, the newest bytes last.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = match tail(&self.old, self.max_bytes) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        bytes.extend(tail(&self.log, self.max_bytes)?);
        let surplus = bytes
            .len()
            .saturating_sub(usize::try_from(self.max_bytes).unwrap_or(usize::MAX));
        bytes.drain(..surplus);
        Ok(bytes)
    }

    /// The last lines, for a message.
    pub(crate) fn last_lines(&self) -> String {
        let bytes = self.read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// Keeps the console of a machine that has no owner within its limit.
///
/// # Errors
/// When its files cannot be read or written.
pub(crate) fn trim_console(machine: &Path, max_bytes: u64) -> io::Result<()> {
    Console::new(machine.join(LOG), max_bytes).trim()
}

/// Keeps a console within its limit, and complains of one that is lost only once: somebody has removed the file, and
/// it will not come back.
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
    log: fs::File,
    console: Console,
    /// How much of what was ever written has been read, or missed.
    read_bytes: u64,
}

impl ConsoleFollower {
    /// What came since the last call, at most [`FOLLOW_MAX_BYTES`]; nothing when nothing came. What was cut off before it
    /// was read is missed. It blocks for the reading of a file.
    ///
    /// # Errors
    /// When the file cannot be read. That the machine is gone is no such reason.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let cut_bytes = lock(&self.console.cut_bytes);
        let mut bytes = Vec::new();
        if self.read_bytes < *cut_bytes {
            // The end of what was cut off is still there; with the machine it goes.
            let missed = *cut_bytes - self.read_bytes;
            bytes = tail(&self.console.old, missed).unwrap_or_default();
            self.read_bytes = *cut_bytes;
        }
        let room = FOLLOW_MAX_BYTES.saturating_sub(bytes.len());
        let mut piece = vec![0; room];
        let count = self.log.read_at(&mut piece, self.read_bytes - *cut_bytes)?;
        self.read_bytes += count as u64;
        bytes.extend_from_slice(&piece[..count]);
        Ok(bytes)
    }
}

/// The last bytes of a file.
fn tail(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    use std::io::Seek;
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(max_bytes)))?;
    let mut bytes = Vec::new();
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_lost_console_is_complained_of_once() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let console = Console::new(folder.path().join("console.log"), 1000);
        let mut trimmer = Trimmer::new(console.clone());
        fs::write(&console.log, "here")?;
        assert!(trimmer.trim().is_none());
        fs::remove_file(&console.log)?;
        let error = trimmer.trim().expect("it is gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(trimmer.trim().is_none());
        Ok(())
    }

    #[test]
    fn the_newest_part_is_kept_and_no_more() -> io::Result<()> {
        const MAX: u64 = 1000;
        let folder = tempfile::tempdir()?;
        let console = Console::new(folder.path().join("console.log"), MAX);
        let mut machine = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&console.log)?;
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
        let console = Console::new(folder.path().join("console.log"), MAX);
        let mut machine = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&console.log)?;
        let mut written = b"before\r\n".to_vec();
        machine.write_all(&written)?;
        let mut follower = console.follow()?;
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
        let console = Console::new(folder.path().join("console.log"), 100);
        fs::write(&console.log, b"")?;
        let mut follower = console.follow()?;
        let mut machine = OpenOptions::new().append(true).open(&console.log)?;
        for byte in b'a'..=b'z' {
            machine.write_all(&[byte; 60])?;
            console.trim()?;
        }
        machine.write_all(b"now")?;
        let read = String::from_utf8_lossy(&follower.read()?).into_owned();
        assert_eq!(read, format!("{}now", "z".repeat(50)));
        Ok(())
    }
}
