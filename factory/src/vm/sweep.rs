//! Ends what an earlier service left behind.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::dir::VmDir;
use super::record::VmRecord;
use crate::process::{ProcessStamp, end_stray};

/// How long a killed process may take to be gone.
const GONE_DEADLINE: Duration = Duration::from_secs(10);

/// Ends every machine that has a directory in `run_dir`, and removes the directories. Answers what was done, one
/// line each. The caller holds the lock of the run directory, so none of the machines has an owner.
///
/// # Errors
/// When a process cannot be ended or a directory cannot be removed: then it is still there.
pub(crate) async fn sweep(run_dir: &Path) -> io::Result<Vec<String>> {
    let mut done = Vec::new();
    let entries = match fs::read_dir(VmDir::all(run_dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(done),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let stamp = match VmRecord::read(&path) {
            Ok(record) => Some(record.process),
            // A service that died between a start and its record has left a process that only its name tells.
            Err(_) => find_by_name(&name),
        };
        let ended = match stamp {
            Some(stamp) => end_stray(stamp, GONE_DEADLINE).await?.then_some(stamp.pid),
            None => None,
        };
        fs::remove_dir_all(&path)?;
        done.push(match ended {
            Some(pid) => {
                format!("ended virtual machine {name} (process {pid}) of an earlier service")
            }
            None => format!("removed the directory of virtual machine {name}, which had ended"),
        });
    }
    Ok(done)
}

/// Finds the hypervisor's process of a machine by the `-name` on its command line.
fn find_by_name(id: &str) -> Option<ProcessStamp> {
    let wanted = format!("vmint-{id}");
    let of_machine = |process: &procfs::process::Process| {
        process.cmdline().is_ok_and(|words| {
            words
                .windows(2)
                .any(|pair| pair[0] == "-name" && pair[1] == wanted)
        })
    };
    let mut all = procfs::process::all_processes().ok()?.flatten();
    let process = all.find(of_machine)?;
    u32::try_from(process.pid)
        .ok()
        .and_then(|pid| ProcessStamp::of(pid).ok())
}
