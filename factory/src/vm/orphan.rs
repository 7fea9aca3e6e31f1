//! A machine that has outlived its service, and whether it can be taken up again.
//!
//! ```text
//!             open: record, process          adopt: generation, monitor
//!  directory --------------------> orphan ----------------------------> a machine with an owner, as any other
//!      |                             |  |
//!      | half made, no clone,        |  | nobody wants it, its monitor is silent, it stands between two states
//!      v ended, unreadable           |  v
//!    swept                           |  ended
//!                                    | the factory is dropped before it was asked: it goes on as it is, for the
//!                                    v next service
//! ```
//!
//! What always holds, wherever a `kill -9` falls:
//! - Only a clone that was whole is an orphan: its record says `ready` or `leased`, which is written last. What was
//!   being made, looked at or ended is swept.
//! - No process is signalled that is not the recorded one: number, start time and host boot agree, it runs the program
//!   that was recorded, and its command line names this machine.
//! - An orphan has no owner and no guard: until somebody adopts it, losing it changes nothing.
//! - A clone that was left between paused and running is not taken up: its clock may never have been set.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::console::Console;
use super::dir::VmDir;
use super::live::{LiveVm, Parts};
use super::record::{RecordedState, Role, VmRecord};
use super::record_file::RecordFile;
use crate::driver::{Driver, Monitor, MonitorError};
use crate::host::Place;
use crate::process::{ExitWatch, OwnedProcess, ProcessStamp, Stray, boot_id, program_of};

/// How long a process that nobody takes up may take to end before it is killed.
const END_GRACE: Duration = Duration::from_secs(1);
/// The same for a machine with disks, which writes what it holds of them before it ends.
const FLUSH_GRACE: Duration = Duration::from_secs(60);

/// A whole clone of an earlier service.
#[derive(Debug)]
pub(crate) struct Orphan {
    path: PathBuf,
    record: VmRecord,
}

impl Orphan {
    /// Looks at a machine's directory. The error says why it cannot be taken up.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let record = RecordFile::read(path).map_err(|e| format!("its record is no use: {e}"))?;
        if path.file_name().and_then(|name| name.to_str()) != Some(record.id.as_str()) {
            return Err(format!("its record is that of {}", record.id));
        }
        match record.role {
            Role::Clone => {}
            Role::Template => return Err("it was becoming a template".to_owned()),
            Role::Canary | Role::Probe => return Err("it was a trial".to_owned()),
        }
        match record.state {
            RecordedState::Ready | RecordedState::Leased => {}
            RecordedState::Launching => return Err("it was being made".to_owned()),
            RecordedState::Preparing => return Err("it was being prepared for somebody".to_owned()),
            RecordedState::Releasing => return Err("it was being ended".to_owned()),
        }
        if record.generation.is_none() || record.identity.is_none() {
            return Err("its record lacks what it was made from".to_owned());
        }
        // Whether it is like another clone could not be told.
        if record.state == RecordedState::Ready && record.digest.is_none() {
            return Err("its record lacks what shows that it is unique".to_owned());
        }
        match process_of(&record) {
            Some(stamp) if !has_exited(stamp) => {}
            _ => return Err("it had ended".to_owned()),
        }
        Ok(Self {
            path: path.to_owned(),
            record,
        })
    }

    pub(crate) fn record(&self) -> &VmRecord {
        &self.record
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes it up: it has an owner from now on. Who cannot be taken up is ended, and the error says why.
    ///
    /// # Cancel safety
    /// A dropped call ends it.
    pub(crate) async fn adopt(
        self,
        driver: &dyn Driver,
        run_dir: &Arc<Place>,
    ) -> Result<(LiveVm, VmRecord), String> {
        let (stamp, grace) = (self.record.process, end_grace(&self.record));
        let held = Stray::hold(stamp).map_err(|e| e.to_string())?;
        let dir = VmDir::adopt(self.path);
        let Some(stray) = held else {
            return Err("it has ended meanwhile".to_owned());
        };
        // From here a failure ends the process before its directory goes.
        let mut process = OwnedProcess::adopt(stray, self.record.may_connect);
        match take_up(stamp, &dir, driver).await {
            Ok((watch, monitor, console, record)) => {
                let about = record.record().clone();
                let parts = Parts {
                    process,
                    watch,
                    monitor,
                    dir,
                    console,
                    record: record.within(Arc::clone(run_dir)),
                };
                Ok((LiveVm::own(parts), about))
            }
            Err(why) => {
                process.end(grace).await;
                drop(dir);
                Err(why)
            }
        }
    }

    /// Ends it and removes its directory.
    ///
    /// # Cancel safety
    /// A dropped call ends it, too.
    pub(crate) async fn end(self) {
        let dir = VmDir::adopt(self.path);
        // Where it cannot be held it is gone, or not ours to signal.
        if let Ok(Some(stray)) = Stray::hold(self.record.process) {
            OwnedProcess::adopt(stray, self.record.may_connect)
                .end(end_grace(&self.record))
                .await;
        }
        drop(dir);
    }
}

fn end_grace(record: &VmRecord) -> Duration {
    if record.devices.disks.is_empty() {
        END_GRACE
    } else {
        FLUSH_GRACE
    }
}

type TakenUp = (Arc<ExitWatch>, Arc<dyn Monitor>, Console, RecordFile);

/// What a machine needs beside its process. The error is in words.
async fn take_up(stamp: ProcessStamp, dir: &VmDir, driver: &dyn Driver) -> Result<TakenUp, String> {
    let words = |e: io::Error| e.to_string();
    let watch = ExitWatch::of(stamp.pid).map_err(words)?;
    if !stamp.is_alive() || watch.has_exited() {
        return Err("it has ended meanwhile".to_owned());
    }
    let record = RecordFile::open(dir.path()).map_err(words)?;
    let silent = |e: MonitorError| format!("its monitor does not answer: {e}");
    let monitor = driver.attach(&dir.monitor()).await.map_err(silent)?;
    let runs = monitor.is_running().await.map_err(silent)?;
    if runs == record.record().paused_at.is_some() {
        let state = if runs { "runs" } else { "does not run" };
        return Err(format!(
            "it {state}, against what its record says: it was being paused or resumed"
        ));
    }
    let max_bytes = record.record().console_max_bytes;
    let console = Console::of_process(&dir.console_log(), stamp.pid, max_bytes);
    let console = console.map_err(|e| format!("its console is lost: {e}"))?;
    Ok((Arc::new(watch), Arc::from(monitor), console, record))
}

/// The process of a record, if it still exists and is what the record says; one of another boot, another program or
/// another machine is not.
pub(crate) fn process_of(record: &VmRecord) -> Option<ProcessStamp> {
    let stamp = record.process;
    let is_it = record.boot_id == boot_id()
        && program_of(stamp.pid).is_ok_and(|program| program == record.program)
        && is_named(stamp.pid, record.id.as_str())
        // Last: whatever was looked at above was this very process.
        && stamp.is_alive();
    is_it.then_some(stamp)
}

fn has_exited(stamp: ProcessStamp) -> bool {
    ExitWatch::of(stamp.pid).map_or(true, |watch| watch.has_exited())
}

/// Whether a process has the `-name` of this machine on its command line.
pub(super) fn is_named(pid: u32, id: &str) -> bool {
    let wanted = format!("vmint-{id}");
    let number = i32::try_from(pid).unwrap_or_default();
    let words = procfs::process::Process::new(number).and_then(|process| process.cmdline());
    words.is_ok_and(|words| {
        words
            .windows(2)
            .any(|pair| pair[0] == "-name" && pair[1] == wanted)
    })
}

#[cfg(test)]
#[path = "orphan_tests.rs"]
mod tests;
