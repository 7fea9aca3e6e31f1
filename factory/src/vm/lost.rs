//! What becomes of a machine whose directory is removed, moved or unmounted while it runs.
//!
//! Its sockets are gone for good: it listens on them, and no name leads there. What the service has opened goes on working,
//! its console among it.
//! A clone that nobody has yet is ended, and the pool makes another. A sandbox lives on, and its record is written again,
//! so that the guardian and the next service know when its lease ends; that service ends it, as it cannot reach its
//! monitor. Where the record cannot be written again, because another service has the run directory by now, the sandbox
//! is not left to any service: it ends with this one.

use std::io;
use std::sync::{Arc, Mutex};

use super::record::RecordedState;
use super::record_file::RecordFile;
use crate::sync::lock;

/// Looks after the record of one machine.
#[derive(Clone, Debug)]
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
        lock(&self.record).close();
    }

    /// Whether a service that comes later finds the machine: its record is there, or could be written again.
    ///
    /// # Errors
    /// When it cannot be written again.
    pub(super) fn is_kept(&self) -> io::Result<()> {
        let mut file = lock(&self.record);
        match file.is_lost() {
            true => file.update(|_| {}),
            false => Ok(()),
        }
    }

    /// Looks whether the record is there: two system calls. Answers why the machine is to be ended, where it is.
    pub(super) fn look(&mut self) -> Option<String> {
        let mut file = lock(&self.record);
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
    use crate::host::Place;

    #[test]
    fn a_removed_record_ends_a_clone_that_nobody_has_and_comes_back_for_a_sandbox()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("vm/x");
        fs::create_dir_all(&dir)?;
        let file = Arc::new(Mutex::new(RecordFile::create(&dir, record())?));
        let update = |state, metadata: &str| {
            lock(&file).update(|record| {
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
        *lock(&file) = fresh;
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

    /// A machine in a run directory of its own, and the keeper of its record.
    struct Kept {
        folder: tempfile::TempDir,
        dir: std::path::PathBuf,
        file: Arc<Mutex<RecordFile>>,
        keeper: RecordKeeper,
    }

    fn kept(state: RecordedState) -> anyhow::Result<Kept> {
        let folder = tempfile::tempdir()?;
        let run_dir = folder.path().join("run");
        let place = Arc::new(Place::run_dir(&run_dir)?);
        let about = record();
        let dir = run_dir.join("vm").join(about.id.as_str());
        fs::create_dir_all(&dir)?;
        let file = RecordFile::create(&dir, about)?.within(place);
        let file = Arc::new(Mutex::new(file));
        lock(&file).update(|record| {
            record.state = state;
            record.lease = Some(lease("mine".to_owned()));
        })?;
        let keeper = RecordKeeper::new(Arc::clone(&file));
        Ok(Kept {
            folder,
            dir,
            file,
            keeper,
        })
    }

    #[test]
    fn a_record_that_was_moved_away_is_as_good_as_removed() -> anyhow::Result<()> {
        for state in [RecordedState::Ready, RecordedState::Leased] {
            let mut kept = kept(state)?;
            let (run, old) = (
                kept.folder.path().join("run"),
                kept.folder.path().join("old"),
            );
            fs::rename(&run, &old)?;
            if state == RecordedState::Ready {
                assert!(kept.keeper.look().is_some(), "it is handed out");
                continue;
            }
            assert_eq!(kept.keeper.look(), None);
            let read = RecordFile::read(&kept.dir)?;
            assert_eq!(
                &read,
                lock(&kept.file).record(),
                "where the next service looks"
            );
            lock(&kept.file).update(|record| record.state = RecordedState::Releasing)?;
            assert_eq!(RecordFile::read(&kept.dir)?.state, RecordedState::Releasing);
        }
        Ok(())
    }

    /// Makes a copy of a record in its place, as a backup that is played back does.
    fn is_copied_over(path: &std::path::Path) -> anyhow::Result<()> {
        let (fresh, vm) = (path.with_extension("copy"), path.with_extension("json"));
        fs::copy(&vm, &fresh)?;
        Ok(fs::rename(fresh, vm)?)
    }

    #[test]
    fn a_record_whose_name_leads_to_another_file_is_as_good_as_removed() -> anyhow::Result<()> {
        for state in [RecordedState::Ready, RecordedState::Leased] {
            let mut kept = kept(state)?;
            let path = kept.dir.join("vm.json");
            assert_eq!(kept.keeper.look(), None, "it is where it was");
            is_copied_over(&path)?;
            if state == RecordedState::Ready {
                assert!(kept.keeper.look().is_some(), "it is handed out");
                continue;
            }
            // What is written to the file that was there is found by nobody.
            lock(&kept.file).update(|record| record.lease = Some(lease("renewed".to_owned())))?;
            let read = RecordFile::read(&kept.dir)?;
            assert_eq!(&read, lock(&kept.file).record());
            assert_eq!(kept.keeper.look(), None);
            is_copied_over(&path)?;
            assert_eq!(kept.keeper.look(), None, "it lives on");
            assert!(!lock(&kept.file).is_lost(), "it was not written again");
        }
        Ok(())
    }

    #[test]
    fn nothing_is_written_into_a_run_directory_that_another_service_has() -> anyhow::Result<()> {
        let mut kept = kept(RecordedState::Leased)?;
        let run = kept.folder.path().join("run");
        assert!(kept.keeper.is_kept().is_ok());
        fs::remove_dir_all(&run)?;
        let another = Place::run_dir(&run)?;
        assert_eq!(kept.keeper.look(), None, "it lives on");
        assert!(lock(&kept.file).update(|_| {}).is_err());
        assert!(kept.keeper.is_kept().is_err(), "it can be left to nobody");
        assert!(!run.join("vm").exists());
        drop(another);
        assert!(kept.keeper.is_kept().is_ok());
        assert!(RecordFile::read(&kept.dir)?.lease.is_some());
        Ok(())
    }

    #[test]
    fn a_record_that_a_panic_left_half_changed_ends_the_service() -> anyhow::Result<()> {
        const PLAYED: &str = "VMINT_TEST_POISONED_RECORD";
        /// The signal of `abort`.
        const SIGABRT: i32 = 6;
        if std::env::var_os(PLAYED).is_some() {
            let mut kept = kept(RecordedState::Leased)?;
            let file = Arc::clone(&kept.file);
            let update = move || lock(&file).update(|_| panic!("a mistake"));
            assert!(std::thread::spawn(update).join().is_err());
            kept.keeper.look();
            return Ok(());
        }
        let this = "vm::lost::tests::a_record_that_a_panic_left_half_changed_ends_the_service";
        let output = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", this, "--nocapture"])
            .env(PLAYED, "1")
            .output()?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(SIGABRT), "{output:?}");
        Ok(())
    }
}
