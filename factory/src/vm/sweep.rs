//! What an earlier service left behind: what can be taken up again is told, and the rest is ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::dir::VmDir;
use super::orphan::{Orphan, is_named, process_of};
use super::record_file::RecordFile;
use crate::process::{ProcessStamp, end_stray};

/// How long a killed process may take to be gone.
const GONE_DEADLINE: Duration = Duration::from_secs(10);

/// What was found in a run directory.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// Whole clones that still run.
    pub(crate) orphans: Vec<Orphan>,
    /// What was done with the rest, one line each.
    pub(crate) done: Vec<String>,
}

/// Looks at every machine that has a directory in `run_dir`. Those that nobody can take up are ended, and their
/// directories removed. The caller holds the lock of the run directory, so none of the machines has an owner.
///
/// # Errors
/// When a process cannot be ended or a directory cannot be removed: then it is still there.
pub(crate) async fn examine(run_dir: &Path) -> io::Result<Examined> {
    let mut examined = Examined::default();
    for path in machines(run_dir)? {
        match Orphan::of(&path) {
            Ok(orphan) => examined.orphans.push(orphan),
            Err(why) => examined.done.push(remove(&path, &why).await?),
        }
    }
    Ok(examined)
}

/// Ends every machine that has a directory in `run_dir`, and removes the directories. Answers what was done, one
/// line each.
///
/// # Errors
/// As [`examine`].
pub(crate) async fn sweep(run_dir: &Path) -> io::Result<Vec<String>> {
    let mut done = Vec::new();
    for path in machines(run_dir)? {
        done.push(remove(&path, "everything is to go").await?);
    }
    Ok(done)
}

/// The directories of all machines.
pub(crate) fn machines(run_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(VmDir::all(run_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

/// Ends one machine, if there is one, and removes its directory.
async fn remove(path: &Path, why: &str) -> io::Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stamp = match RecordFile::read(path) {
        Ok(record) => process_of(&record),
        // A service that died between a start and its record has left a process that only its name tells.
        Err(_) => find_by_name(&name),
    };
    let ended = match stamp {
        Some(stamp) => end_stray(stamp, GONE_DEADLINE).await?.then_some(stamp.pid),
        None => None,
    };
    fs::remove_dir_all(path)?;
    Ok(match ended {
        Some(pid) => {
            format!("ended virtual machine {name} (process {pid}) of an earlier service: {why}")
        }
        None => format!("removed the directory of virtual machine {name}, which had ended: {why}"),
    })
}

/// Finds the hypervisor's process of a machine by the `-name` on its command line.
fn find_by_name(id: &str) -> Option<ProcessStamp> {
    let all = procfs::process::all_processes().ok()?.flatten();
    let mut pids = all.filter_map(|process| u32::try_from(process.pid).ok());
    let pid = pids.find(|&pid| is_named(pid, id))?;
    ProcessStamp::of(pid).ok()
}
