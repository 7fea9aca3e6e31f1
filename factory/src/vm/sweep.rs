//! What an earlier service left behind: what can be taken up again is told, and the rest is ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::process::Process;

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

/// Whose a hypervisor's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// That of one of these users.
    Uids([u32; 2]),
    /// That is not known.
    Anybody,
}

impl Owner {
    /// Whether a process is one of these users', by whom it acts as: what it owns in `/proc` may say root.
    fn owns(self, process: &Process) -> bool {
        match self {
            Self::Anybody => true,
            Self::Uids(uids) => process
                .status()
                .is_ok_and(|status| uids.contains(&status.euid)),
        }
    }
}

/// Looks at every machine that has a directory in `run_dir`. Those that nobody can take up are ended, and their
/// directories removed. The caller holds the lock of the run directory, so none of the machines has an owner.
///
/// # Errors
/// When a process cannot be ended or a directory cannot be removed: then it is still there.
pub(crate) async fn examine(run_dir: &Path, hypervisors: Owner) -> io::Result<Examined> {
    let mut examined = Examined::default();
    for path in machines(run_dir)? {
        match Orphan::of(&path) {
            Ok(orphan) => examined.orphans.push(orphan),
            Err(why) => examined.done.push(remove(&path, hypervisors, &why).await?),
        }
    }
    Ok(examined)
}

/// Ends every machine that has a directory in `run_dir`, and removes the directories. Answers what was done, one
/// line each.
///
/// # Errors
/// As [`examine`].
pub(crate) async fn sweep(run_dir: &Path, hypervisors: Owner) -> io::Result<Vec<String>> {
    let mut done = Vec::new();
    for path in machines(run_dir)? {
        done.push(remove(&path, hypervisors, "everything is to go").await?);
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
async fn remove(path: &Path, hypervisors: Owner, why: &str) -> io::Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stamps = match RecordFile::read(path) {
        Ok(record) => process_of(&record).into_iter().collect(),
        // A service that died between a start and its record has left a process that only its name tells.
        Err(_) => processes_named(&name, hypervisors),
    };
    let mut ended = Vec::new();
    for stamp in stamps {
        if end_stray(stamp, GONE_DEADLINE).await? {
            ended.push(stamp.pid.to_string());
        }
    }
    fs::remove_dir_all(path)?;
    Ok(match ended.join(" ") {
        none if none.is_empty() => {
            format!("removed the directory of virtual machine {name}, which had ended: {why}")
        }
        pids => {
            format!("ended virtual machine {name} (process {pids}) of an earlier service: {why}")
        }
    })
}

/// The processes of a machine without a record: those of the hypervisors' user that have its `-name` on the command line.
/// Anybody can write that there, so it is all of them, and none of another user's.
pub(crate) fn processes_named(id: &str, hypervisors: Owner) -> Vec<ProcessStamp> {
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    let named = all.flatten().filter_map(|process| {
        let pid = u32::try_from(process.pid).ok()?;
        let is_it = is_named(pid, id) && hypervisors.owns(&process);
        is_it.then(|| ProcessStamp::of(pid).ok()).flatten()
    });
    named.collect()
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
