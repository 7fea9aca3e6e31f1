//! What becomes of a machine whose directory is removed while it runs.
//!
//! Its sockets are gone for good: it listens on them, and no name leads there. What the service has opened goes on working.
//! A clone that nobody has yet is ended, and the pool makes another. A sandbox lives on, and its record is written again,
//! so that the guardian and the next service know when its lease ends; that service ends it, as it cannot reach its
//! monitor.

use std::sync::{Arc, Mutex, PoisonError};

use super::record::RecordedState;
use super::record_file::RecordFile;

/// Looks after the record of one machine.
#[derive(Debug)]
pub(super) struct RecordKeeper {
    record: Arc<Mutex<RecordFile>>,
    has_complained: bool,
}

impl RecordKeeper {
    pub(super) fn new(record: Arc<Mutex<RecordFile>>) -> Self {
        Self {
            record,
            has_complained: false,
        }
    }

    /// Nobody looks after it from now on: its directory goes, or is left to the next service.
    pub(super) fn close(&self) {
        let mut file = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        file.close();
    }

    /// Looks whether the record is there: one system call. Answers why the machine is to be ended, where it is.
    pub(super) fn look(&mut self) -> Option<String> {
        let mut file = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if !file.is_lost() {
            return None;
        }
        let vm = file.record().id.clone();
        match file.record().state {
            RecordedState::Ready => {
                return Some("its directory was removed while nobody had it".to_owned());
            }
            RecordedState::Leased => {}
            // Whoever is at it finds out by itself.
            RecordedState::Launching | RecordedState::Preparing | RecordedState::Releasing => {
                return None;
            }
        }
        match file.update(|_| {}) {
            Ok(()) => {
                tracing::warn!(%vm, "the directory of a sandbox was removed: its record is written again, its sockets are gone");
            }
            Err(error) if !self.has_complained => {
                tracing::warn!(%vm, %error, "the directory of a sandbox was removed, and its record cannot be written again");
                self.has_complained = true;
            }
            Err(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::record::tests::{lease, record};
    use super::*;

    #[test]
    fn a_removed_record_ends_a_clone_that_nobody_has_and_comes_back_for_a_sandbox()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("vm/x");
        fs::create_dir_all(&dir)?;
        let file = Arc::new(Mutex::new(RecordFile::create(&dir, record())?));
        let update = |state, metadata: &str| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.update(|record| {
                record.state = state;
                record.lease = Some(lease(metadata.to_owned()));
            })
        };
        let mut keeper = RecordKeeper::new(Arc::clone(&file));
        update(RecordedState::Ready, "")?;
        assert_eq!(keeper.look(), None);
        fs::remove_dir_all(folder.path().join("vm"))?;
        assert!(
            keeper
                .look()
                .is_some_and(|why| why.starts_with("its directory was removed"))
        );
        let refused = update(RecordedState::Leased, "").map_err(|error| error.kind());
        assert_eq!(refused, Err(std::io::ErrorKind::NotFound), "nobody gets it");
        assert!(!dir.exists());

        fs::create_dir_all(&dir)?;
        let fresh = RecordFile::create(&dir, record())?;
        *file.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        update(RecordedState::Leased, "one")?;
        fs::remove_dir_all(folder.path().join("vm"))?;
        assert_eq!(keeper.look(), None);
        let read = || RecordFile::read(&dir).map(|record| record.lease.map(|lease| lease.metadata));
        let wanted = |metadata: &str| Some(lease(metadata.to_owned()).metadata);
        assert_eq!(read()?, wanted("one"));
        fs::remove_file(dir.join("vm.json"))?;
        update(RecordedState::Leased, "renewed")?;
        assert_eq!(read()?, wanted("renewed"));
        assert_eq!(keeper.look(), None);
        fs::remove_dir_all(folder.path())?;
        assert_eq!(keeper.look(), None, "there is no run directory yet");
        fs::create_dir(folder.path())?;
        assert_eq!(keeper.look(), None);
        assert_eq!(read()?, wanted("renewed"));

        // A renewal that comes when the machine has ended, and its directory is gone with it.
        keeper.close();
        fs::remove_dir_all(folder.path().join("vm"))?;
        let late = update(RecordedState::Leased, "late").map_err(|error| error.kind());
        assert_eq!(late, Err(std::io::ErrorKind::NotFound));
        assert!(!folder.path().join("vm").exists());
        Ok(())
    }
}
