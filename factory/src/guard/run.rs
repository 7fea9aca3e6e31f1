//! What the guardian does.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::FILE;
use crate::clock::Moment;
use crate::host::holder_of;
use crate::process::{ProcessStamp, Stray};
use crate::rights::write_own;
use crate::vm::{
    Owner, RecordFile, RecordedState, Role, VmRecord, machines, process_of, processes_named,
    trim_console,
};

/// How often records are looked at while there is no service.
const TICK: Duration = Duration::from_secs(1);
/// How often it looks whether a service still lives that cannot be missed: it is told by a pidfd.
const WATCH_LONGEST: Duration = Duration::from_secs(3600);
/// How much longer a lease may last while a service lives that has no guardian yet: it is the one to end it.
const SERVICE_FIRST: Duration = Duration::from_secs(2);
/// How long a machine may run on whose record cannot be read: it may be written this very moment, by a service that is
/// being killed. Nobody knows when its lease ends, so it is not left to run for good.
const UNREADABLE_GRACE: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone.
const GONE_DEADLINE: Duration = Duration::from_secs(10);

/// Why leases are not guarded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The run directory cannot be used.
    #[error("cannot guard the leases of {}: {source}", .path.display())]
    RunDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Guards the leases of a run directory until there is nothing to guard, or somebody else does. `hypervisor_uids` are the
/// users that machines run as. It blocks.
///
/// # Errors
/// When the run directory cannot be read or written.
pub fn guard_leases(run_dir: &Path, hypervisor_uids: [u32; 2]) -> Result<(), GuardError> {
    let failed = |source| GuardError::RunDir {
        path: run_dir.to_owned(),
        source,
    };
    let me = announce(run_dir).map_err(failed)?;
    if let Some(service) = alive(holder_of(run_dir)) {
        while !has_ended(&service, WATCH_LONGEST).map_err(failed)? {}
    }
    let mut rounds = Rounds::new(run_dir, Owner::Uids(hypervisor_uids));
    loop {
        if alive(announced(run_dir).filter(|stamp| *stamp != me)).is_some() {
            return Ok(());
        }
        let next = alive(holder_of(run_dir));
        let grace = next.as_ref().map_or(Duration::ZERO, |_| SERVICE_FIRST);
        let left = rounds.round(grace).map_err(failed)?;
        match next {
            None if left == 0 => return Ok(()),
            None => std::thread::sleep(TICK),
            Some(next) => {
                has_ended(&next, TICK).map_err(failed)?;
            }
        }
    }
}

/// Looks at all machines again and again.
struct Rounds {
    run_dir: PathBuf,
    hypervisors: Owner,
    /// Machines whose record could not be read, and since when.
    unreadable: HashMap<PathBuf, Instant>,
}

impl Rounds {
    fn new(run_dir: &Path, hypervisors: Owner) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            hypervisors,
            unreadable: HashMap::new(),
        }
    }

    /// Looks at every record once: ends what nobody has a right to any more, and keeps the consoles of the others within
    /// their limit. Answers how many those are. With a grace a service lives, which sees to machines without a record.
    fn round(&mut self, grace: Duration) -> io::Result<usize> {
        let grace_ns = i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX);
        let (mut left, mut unreadable) = (0, HashMap::new());
        for path in machines(&self.run_dir)? {
            let record = match RecordFile::read(&path) {
                Ok(record) => record,
                Err(_) if !grace.is_zero() => continue,
                Err(error) => {
                    let since = self.unreadable.remove(&path).unwrap_or_else(Instant::now);
                    if end_unreadable(&path, self.hypervisors, since, &error)? {
                        left += 1;
                        unreadable.insert(path, since);
                    }
                    continue;
                }
            };
            if record.role != Role::Clone {
                continue;
            }
            let left_ns = match record.state {
                RecordedState::Launching | RecordedState::Ready | RecordedState::Preparing => {
                    continue;
                }
                // One without an end has all the time there is.
                RecordedState::Leased => record.lease_left_ns(Moment::now()).unwrap_or(i64::MAX),
                RecordedState::Releasing => i64::MIN,
            };
            if left_ns <= -grace_ns {
                end(&record)?;
            } else if process_of(&record).is_some() {
                left += 1;
                keep_console_short(&path, &record);
            }
        }
        self.unreadable = unreadable;
        Ok(left)
    }
}

/// Ends a machine whose record could not be read for too long. Answers whether it still runs.
fn end_unreadable(
    path: &Path,
    hypervisors: Owner,
    since: Instant,
    why: &io::Error,
) -> io::Result<bool> {
    let vm = path.file_name().unwrap_or_default().to_string_lossy();
    let processes = processes_named(&vm, hypervisors);
    if processes.is_empty() || since.elapsed() < UNREADABLE_GRACE {
        return Ok(!processes.is_empty());
    }
    for stamp in processes {
        let Some(stray) = Stray::hold(stamp)? else {
            continue;
        };
        stray.signal(Signal::KILL)?;
        let (is_gone, pid) = (has_ended(&stray, GONE_DEADLINE)?, stamp.pid);
        tracing::warn!(%vm, pid, is_gone, %why, "ended a virtual machine of which nobody knows when its lease ends");
    }
    Ok(false)
}

/// What a guest writes may not fill the host while there is no service to cut it.
fn keep_console_short(path: &Path, record: &VmRecord) {
    match trim_console(path, record.process.pid, record.console_max_bytes) {
        // Its process has ended meanwhile.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(vm = %record.id, %error, "a console's log cannot be cut");
        }
        Ok(()) | Err(_) => {}
    }
}

fn end(record: &VmRecord) -> io::Result<()> {
    let Some(stray) = process_of(record).map(Stray::hold).transpose()?.flatten() else {
        return Ok(());
    };
    stray.signal(Signal::KILL)?;
    let is_gone = has_ended(&stray, GONE_DEADLINE)?;
    let (vm, pid) = (&record.id, record.process.pid);
    if is_gone {
        tracing::info!(%vm, pid, "ended a sandbox whose lease has run out while no service was there");
    } else {
        tracing::warn!(%vm, pid, "a sandbox whose lease has run out does not end");
    }
    Ok(())
}

/// Writes down who guards from now on. It is there whole or not at all.
fn announce(run_dir: &Path) -> io::Result<ProcessStamp> {
    let me = ProcessStamp::of(std::process::id())?;
    let fresh = run_dir.join(format!("{FILE}.{}", me.pid));
    write_own(&fresh, me.to_string().as_bytes())?;
    fs::rename(&fresh, run_dir.join(FILE))?;
    Ok(me)
}

fn announced(run_dir: &Path) -> Option<ProcessStamp> {
    ProcessStamp::parse(&fs::read_to_string(run_dir.join(FILE)).ok()?)
}

/// The process of a stamp, if it still runs. One that has ended and that its parent has not looked after yet does not.
fn alive(stamp: Option<ProcessStamp>) -> Option<Stray> {
    let stray = Stray::hold(stamp?).ok().flatten()?;
    let has_ended = stray.wait_blocking(Duration::ZERO).unwrap_or(true);
    (!has_ended).then_some(stray)
}

fn has_ended(stray: &Stray, deadline: Duration) -> io::Result<bool> {
    stray.wait_blocking(deadline)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
