//! The newest part of a serial console.
//!
//! The machine appends to `console.log` through a descriptor of its own. When that has grown to half of what may be
//! kept, its content moves to `console.old` and it is made empty again: the two together hold the newest part and
//! never more than the limit, plus what comes within one [`CHECK_EVERY`]. Bytes written between the copy and the
//! cut are lost; nobody could keep up with such a flood anyway.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a console is looked at. A machine under emulation writes about a megabyte in that time at most.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(500);
/// What of a console is part of an error message.
const TAIL_LINES: usize = 40;

/// The console's files.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    log: PathBuf,
    old: PathBuf,
    max_bytes: u64,
}

impl Console {
    pub(super) fn new(log: PathBuf, max_bytes: u64) -> Self {
        let old = log.with_extension("old");
        Self {
            log,
            old,
            max_bytes,
        }
    }

    /// Moves the older part away when there is too much.
    pub(super) fn trim(&self) -> io::Result<()> {
        let half = self.max_bytes / 2;
        if fs::metadata(&self.log)?.len() <= half {
            return Ok(());
        }
        let newest = tail(&self.log, half)?;
        let fresh = self.old.with_extension("new");
        fs::write(&fresh, newest)?;
        fs::rename(&fresh, &self.old)?;
        // The machine appends, so its next byte comes at the new end.
        OpenOptions::new().write(true).open(&self.log)?.set_len(0)
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
    use super::*;
    use std::io::Write;

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
}
