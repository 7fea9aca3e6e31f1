//! Memory of a process: what is private, and which files it maps.

use std::fs;
use std::io;
use std::path::PathBuf;

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

/// The files that a process has mapped to execute: its program and libraries.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub(crate) fn mapped_files(pid: u32) -> io::Result<Vec<PathBuf>> {
    use procfs::process::{MMPermissions, MMapPath, Process};
    let number = i32::try_from(pid).map_err(io::Error::other)?;
    let maps = Process::new(number).and_then(|process| process.maps());
    let mut files: Vec<_> = maps
        .map_err(io::Error::other)?
        .into_iter()
        .filter(|map| map.perms.contains(MMPermissions::EXECUTE))
        .filter_map(|map| match map.pathname {
            MMapPath::Path(path) if path.is_absolute() => Some(path),
            _ => None,
        })
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
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
    fn a_process_maps_its_program_and_libraries() -> io::Result<()> {
        let files = mapped_files(std::process::id())?;
        assert!(files.contains(&std::env::current_exe()?), "{files:?}");
        assert!(
            files.iter().any(|file| file.ends_with("libc.so.6")),
            "{files:?}"
        );
        Ok(())
    }

    #[test]
    fn this_process_has_private_memory() -> io::Result<()> {
        assert!(anonymous_bytes(std::process::id())? > 0);
        Ok(())
    }
}
