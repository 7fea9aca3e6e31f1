//! The consoles of all machines are kept within their limits by one thread, which looks at each of them in turn, and now and
//! then whether each machine's record is still there.
//!
//! The work blocks, so it is not for the tasks that own the machines; and one round for all of them wakes once, where a
//! timer for each machine would wake a thousand times. The thread ends when no machine is left, and is started again
//! with the next one.

use std::sync::{Arc, Mutex, Weak};
use std::thread;

use tokio::sync::mpsc;

use super::console::{CHECK_EVERY, Console, Trimmer};
use super::lost::RecordKeeper;
use crate::sync::lock;

/// Rounds between two looks at the same record: two seconds.
const ROUNDS_PER_LOOK: u32 = 4;

/// What is looked after of one machine; nothing once it has ended.
type Slot = Mutex<Option<Kept>>;

struct Kept {
    trimmer: Trimmer,
    record: RecordKeeper,
    /// To the owner: why the machine is to end.
    lost: mpsc::Sender<String>,
}

/// Keeps a console within its limit, and a record where it is looked for. Dropped, it waits for what is under way; after
/// that nothing is written to the machine's directory.
pub(super) struct Upkeep(Arc<Slot>);

#[derive(Default)]
struct Round {
    slots: Vec<Weak<Slot>>,
    is_running: bool,
}

static ROUND: Mutex<Round> = Mutex::new(Round {
    slots: Vec::new(),
    is_running: false,
});

impl Upkeep {
    /// Begins with a machine. The receiver hears why the machine is to end, where its record says so.
    pub(super) fn of(console: Console, record: RecordKeeper) -> (Self, mpsc::Receiver<String>) {
        // One word is enough.
        let (lost, hears) = mpsc::channel(1);
        let kept = Kept {
            trimmer: Trimmer::new(console),
            record,
            lost,
        };
        let slot = Arc::new(Mutex::new(Some(kept)));
        let mut round = lock(&ROUND);
        round.slots.push(Arc::downgrade(&slot));
        if !round.is_running {
            let started = thread::Builder::new()
                .name("consoles".to_owned())
                .spawn(keep_round);
            match started {
                Ok(_) => round.is_running = true,
                // The next machine tries again.
                Err(error) => tracing::error!(%error, "consoles are not kept within their limits"),
            }
        }
        (Self(slot), hears)
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        *lock(&self.0) = None;
    }
}

fn keep_round() {
    /// However the thread ends, the next console starts another one.
    struct Running;
    impl Drop for Running {
        fn drop(&mut self) {
            lock(&ROUND).is_running = false;
        }
    }
    let running = Running;
    let mut round = 0_u32;
    while let Some(slots) = due() {
        let looks = round.is_multiple_of(ROUNDS_PER_LOOK);
        for slot in slots {
            if let Some(kept) = lock(&slot).as_mut() {
                kept.look_after(looks);
            }
        }
        round = round.wrapping_add(1);
        thread::sleep(CHECK_EVERY);
    }
    // It says under the lock that it has ended: a console that comes now starts the next one.
    std::mem::forget(running);
}

impl Kept {
    fn look_after(&mut self, looks_at_record: bool) {
        if let Some(error) = self.trimmer.trim() {
            tracing::warn!(%error, "a console's log cannot be cut");
        }
        if looks_at_record && let Some(why) = self.record.look() {
            // An owner that has heard of it, or ends already, needs to hear no more.
            let _ = self.lost.try_send(why);
        }
    }
}

/// The machines to look at; none when the thread is to end.
fn due() -> Option<Vec<Arc<Slot>>> {
    let mut round = lock(&ROUND);
    round.slots.retain(|slot| slot.strong_count() > 0);
    if round.slots.is_empty() {
        round.is_running = false;
        return None;
    }
    Some(round.slots.iter().filter_map(Weak::upgrade).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::super::record::RecordedState;
    use super::super::record::tests::record;
    use super::super::record_file::RecordFile;
    use super::*;
    use crate::aside::in_place;
    use crate::waiting::wait_until;

    /// The keeper of a record in this folder.
    fn keeper(dir: &Path, state: RecordedState) -> std::io::Result<RecordKeeper> {
        let mut about = record();
        about.state = state;
        let file = in_place(|| RecordFile::create(dir, about))?;
        Ok(RecordKeeper::new(Arc::new(Mutex::new(file))))
    }

    #[tokio::test]
    async fn the_owner_of_a_machine_whose_record_is_lost_hears_of_it() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (log, dir) = (folder.path().join("log"), folder.path().join("machine"));
        fs::write(&log, "")?;
        fs::create_dir(&dir)?;
        let keeper = keeper(&dir, RecordedState::Ready)?;
        let (upkeep, mut lost) = Upkeep::of(Console::open(&log, 1000)?, keeper);
        assert!(lost.try_recv().is_err());
        fs::remove_dir_all(&dir)?;
        let why = tokio::time::timeout(Duration::from_secs(60), lost.recv()).await?;
        assert!(why.is_some_and(|why| why.starts_with("its directory was removed")));
        drop(upkeep);
        assert!(!dir.exists());
        Ok(())
    }

    #[test]
    fn one_thread_trims_all_consoles_and_nothing_is_written_after_the_end() -> std::io::Result<()> {
        const CONSOLES: usize = 200;
        /// More than the limit.
        const WRITTEN: usize = 1200;
        let folder = tempfile::tempdir()?;
        let record = keeper(folder.path(), RecordedState::Launching)?;
        // Twice: the thread ends with the last console, and is there again for the next one.
        for time in 0..2 {
            let logs: Vec<_> = (0..CONSOLES)
                .map(|nth| folder.path().join(format!("{time}-{nth}.log")))
                .collect();
            let written = |byte: u8| {
                logs.iter()
                    .try_for_each(|log| fs::write(log, [byte; WRITTEN]))
            };
            written(b'x')?;
            let consoles = logs.iter().map(|log| Console::open(log, 1000));
            let consoles = consoles.collect::<std::io::Result<Vec<_>>>()?;
            let begin = |console: &Console| Upkeep::of(console.clone(), record.clone()).0;
            let upkeep: Vec<_> = consoles.iter().map(begin).collect();
            wait_until("all consoles are cut", || {
                consoles.iter().all(Console::is_cut)
            });
            drop(upkeep);
            written(b'y')?;
            fs::write(folder.path().join("last.log"), "")?;
            drop(begin(&Console::open(
                &folder.path().join("last.log"),
                1000,
            )?));
            for log in &logs {
                let whole = fs::read(log)? == [b'y'; WRITTEN];
                assert!(whole, "it was cut after its end");
            }
        }
        Ok(())
    }
}
