//! How a service starts its guardian.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::LOG;
use crate::host::{Place, PlaceError};
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
    pub(crate) fn start(
        run_dir: &Arc<Place>,
        program: PathBuf,
        args: Vec<OsString>,
    ) -> io::Result<Self> {
        let mut first = spawn(run_dir, &program, &args)?;
        let run_dir = Arc::clone(run_dir);
        let upkeep = tokio::spawn(supervise("the guardian's upkeep", async move {
            loop {
                first.ended().await;
                tracing::warn!("the lease guardian has ended; starting another one");
                tokio::time::sleep(PAUSE).await;
                match spawn(&run_dir, &program, &args) {
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

/// Starts a guardian, where the run directory is still this service's: it writes down there who guards.
fn spawn(run_dir: &Place, program: &Path, args: &[OsString]) -> io::Result<Detached> {
    run_dir.renew().map_err(PlaceError::into_io)?;
    // A few lines a service: each starts the file anew.
    Detached::spawn(program, args, create_own(&run_dir.path().join(LOG))?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn nothing_is_written_into_a_run_directory_that_another_service_has() -> anyhow::Result<()>
    {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("run");
        let run_dir = Place::run_dir(&path)?;
        let start = |run_dir: &Place| spawn(run_dir, Path::new("/bin/true"), &[]);
        start(&run_dir)?.ended().await;
        assert!(path.join(LOG).exists());
        fs::remove_dir_all(&path)?;
        start(&run_dir)?.ended().await;
        assert!(path.join(LOG).exists(), "it is made again");
        fs::remove_dir_all(&path)?;
        let another = Place::run_dir(&path)?;
        assert!(start(&run_dir).is_err());
        assert!(!path.join(LOG).exists());
        drop(another);
        Ok(())
    }
}
