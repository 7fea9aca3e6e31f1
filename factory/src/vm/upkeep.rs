//! The consoles of all machines are kept within their limits by one thread, which looks at each of them in turn.
//!
//! The work blocks, so it is not for the tasks that own the machines; and one round for all of them wakes once, where a
//! timer for each machine would wake a thousand times. The thread ends when no console is left, and is started again
//! with the next one.

use std::sync::{Arc, Mutex, Weak};
use std::thread;

use super::console::{CHECK_EVERY, Console, Trimmer};
use crate::sync::lock;

/// The trimming of one console; nothing once it has ended.
type Slot = Mutex<Option<Trimmer>>;

/// Keeps a console within its limit. Dropped, it waits for a trim that is under way; after that nothing is written to
/// the machine's directory.
#[derive(Debug)]
pub(super) struct Trimming(Arc<Slot>);

#[derive(Default)]
struct Round {
    slots: Vec<Weak<Slot>>,
    is_running: bool,
}

static ROUND: Mutex<Round> = Mutex::new(Round {
    slots: Vec::new(),
    is_running: false,
});

impl Trimming {
    /// Begins with a console.
    pub(super) fn of(console: Console) -> Self {
        let slot = Arc::new(Mutex::new(Some(Trimmer::new(console))));
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
        Self(slot)
    }
}

impl Drop for Trimming {
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
    while let Some(slots) = due() {
        for slot in slots {
            let mut slot = lock(&slot);
            if let Some(error) = slot.as_mut().and_then(Trimmer::trim) {
                tracing::warn!(%error, "a console's log cannot be cut");
            }
        }
        thread::sleep(CHECK_EVERY);
    }
    // It says under the lock that it has ended: a console that comes now starts the next one.
    std::mem::forget(running);
}

/// The consoles to look at; none when the thread is to end.
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

    use super::*;
    use crate::waiting::wait_until;

    #[test]
    fn one_thread_trims_all_consoles_and_nothing_is_written_after_the_end() -> std::io::Result<()> {
        const CONSOLES: usize = 200;
        /// More than the limit.
        const WRITTEN: usize = 1200;
        let folder = tempfile::tempdir()?;
        // Twice: the thread ends with the last console, and is there again for the next one.
        for time in 0..2 {
            let consoles: Vec<_> = (0..CONSOLES)
                .map(|nth| Console::new(folder.path().join(format!("{time}-{nth}.log")), 1000))
                .collect();
            for console in &consoles {
                fs::write(console.log(), [b'x'; WRITTEN])?;
            }
            let trimming: Vec<_> = consoles.iter().cloned().map(Trimming::of).collect();
            wait_until("all consoles are cut", || {
                consoles.iter().all(Console::is_cut)
            });
            drop(trimming);
            for console in &consoles {
                fs::write(console.log(), [b'y'; WRITTEN])?;
            }
            let others = Trimming::of(Console::new(folder.path().join("last.log"), 1000));
            drop(others);
            for console in &consoles {
                let whole = fs::read(console.log())? == [b'y'; WRITTEN];
                assert!(whole, "it was cut after its end");
            }
        }
        Ok(())
    }
}
