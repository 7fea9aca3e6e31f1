//! How a service starts its guardian.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::LOG;
use crate::process::Detached;
use crate::rights::create_own;
use crate::supervise::supervise;

/// How long a guardian that has ended is not started again: what ends it at once would end the next one, too.
const PAUSE: Duration = Duration::from_secs(10);

/// The guardian of this service. It outlives this handle, and the service.
#[derive(Debug)]
pub struct Guardian {
    /// Starts another one should it end before the service does.
    _upkeep: AbortOnDropHandle<()>,
}

impl Guardian {
    /// Starts it: `program` with `args` is to call [`crate::guard_leases`] on the run directory.
    pub(crate) fn start(run_dir: &Path, program: PathBuf, args: Vec<OsString>) -> io::Result<Self> {
        let log = run_dir.join(LOG);
        let mut first = spawn(&program, &args, &log)?;
        let upkeep = tokio::spawn(supervise("the guardian's upkeep", async move {
            loop {
                first.ended().await;
                tracing::warn!("the lease guardian has ended; starting another one");
                tokio::time::sleep(PAUSE).await;
                match spawn(&program, &args, &log) {
                    Ok(next) => first = next,
                    Err(error) => tracing::error!(%error, "the lease guardian cannot be started"),
                }
            }
        }));
        Ok(Self {
            _upkeep: AbortOnDropHandle::new(upkeep),
        })
    }
}

fn spawn(program: &Path, args: &[OsString], log: &Path) -> io::Result<Detached> {
    // A few lines a service: each starts the file anew.
    Detached::spawn(program, args, create_own(log)?)
}
