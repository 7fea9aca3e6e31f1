//! Private memory of a process.

use std::fs;
use std::io;

/// `Anonymous` in `/proc/<pid>/smaps_rollup`, bytes: pages that belong to this process alone. `Private_Dirty` would
/// count the pages of a template's memory that only one clone happens to have touched (`docs/metrics.md`).
///
/// # Errors
/// When the process is gone or may not be looked at.
pub(crate) fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "smaps_rollup has no line Anonymous",
        )
    })
}

fn parse(text: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_and_its_unit_is_kib() {
        assert_eq!(
            parse("Rss:  100 kB\nAnonymous:          20428 kB\n"),
            Some(20428 * 1024)
        );
        assert_eq!(parse("Rss: 100 kB\n"), None);
    }

    #[test]
    fn this_process_has_private_memory() -> io::Result<()> {
        assert!(anonymous_bytes(std::process::id())? > 0);
        Ok(())
    }
}
