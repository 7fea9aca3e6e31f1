//! Files that are waited for until they grow.
//!
//! One thread of the process waits in the kernel (inotify) for all of them. A file that does not grow costs nothing; one
//! that grows all the time costs one event for each wait, since a watch ends with its first.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::sync::Notify;

use crate::sync::lock;

/// The watcher, once one could be started: the kernel grants each user a number of them, and the service may be out of
/// descriptors just then.
static WATCHER: Mutex<Option<Arc<Watcher>>> = Mutex::new(None);

struct Watcher {
    inotify: Inotify,
    /// Who waits for which file. Locked while a watch is added, so that its event finds it.
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    by_watch: HashMap<WatchDescriptor, Vec<Arc<Notify>>>,
    /// Why there are no events any more.
    over: Option<Errno>,
}

impl Watcher {
    fn start() -> Result<Arc<Self>, Errno> {
        let watcher = Arc::new(Self {
            inotify: Inotify::init(InitFlags::IN_CLOEXEC)?,
            waiting: Mutex::default(),
        });
        let events = Arc::clone(&watcher);
        let thread = thread::Builder::new().name("console-watch".to_owned());
        thread
            .spawn(move || events.run())
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
        Ok(watcher)
    }

    /// The one that works, or a new one.
    fn of(
        slot: &Mutex<Option<Arc<Self>>>,
        start: impl FnOnce() -> Result<Arc<Self>, Errno>,
    ) -> Result<Arc<Self>, Errno> {
        let mut slot = lock(slot);
        match slot
            .as_ref()
            .filter(|watcher| watcher.waiting().over.is_none())
        {
            Some(watcher) => Ok(Arc::clone(watcher)),
            None => Ok(Arc::clone(slot.insert(start()?))),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    fn happened(&self, events: &[InotifyEvent]) {
        let mut waiting = self.waiting();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                // Events were dropped, and it is not told of which files: each that is waited for is looked at.
                waiting.wake_all();
            } else {
                wake(waiting.by_watch.remove(&event.wd));
            }
        }
    }

    fn run(&self) {
        loop {
            match self.inotify.read_events() {
                Ok(events) => self.happened(&events),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "consoles are not watched any longer, but looked at now and then");
                    let mut waiting = self.waiting();
                    waiting.over = Some(error);
                    waiting.wake_all();
                    return;
                }
            }
        }
    }
}

impl Waiting {
    fn wake_all(&mut self) {
        for (_, all) in self.by_watch.drain() {
            wake(Some(all));
        }
    }
}

fn wake(waiting: Option<Vec<Arc<Notify>>>) {
    for one in waiting.into_iter().flatten() {
        one.notify_one();
    }
}

/// Waits for a file to grow, from the moment when this was made.
pub struct Growth {
    watcher: Arc<Watcher>,
    watch: WatchDescriptor,
    notify: Arc<Notify>,
}

/// Begins to wait for a file to grow.
pub(super) fn watch(path: &Path) -> io::Result<Growth> {
    watch_by(Watcher::of(&WATCHER, Watcher::start)?, path)
}

fn watch_by(watcher: Arc<Watcher>, path: &Path) -> io::Result<Growth> {
    let notify = Arc::new(Notify::new());
    let watch = {
        let mut waiting = watcher.waiting();
        if let Some(error) = waiting.over {
            return Err(error.into());
        }
        let once = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONESHOT;
        let watch = watcher.inotify.add_watch(path, once)?;
        let all = waiting.by_watch.entry(watch).or_default();
        all.push(Arc::clone(&notify));
        watch
    };
    Ok(Growth {
        watcher,
        watch,
        notify,
    })
}

impl Growth {
    /// Resolves once the file has grown.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn happened(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        let mut waiting = self.watcher.waiting();
        let Some(all) = waiting.by_watch.get_mut(&self.watch) else {
            return;
        };
        all.retain(|one| !Arc::ptr_eq(one, &self.notify));
        if all.is_empty() {
            waiting.by_watch.remove(&self.watch);
            // It is gone already when its event is on the way, or its file is.
            let _ = self.watcher.inotify.rm_watch(self.watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn whoever_waits_is_woken_once_something_is_written() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = |nth: usize| folder.path().join(nth.to_string());
        let mut files = Vec::new();
        for nth in 0..1000 {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path(nth))?;
            files.push((file, watch(&path(nth))?, watch(&path(nth))?));
        }
        for (file, one, other) in &mut files {
            let mut first = Box::pin(one.happened());
            assert!(futures::poll!(first.as_mut()).is_pending());
            file.write_all(b"x")?;
            timeout(LONG, first).await?;
            timeout(LONG, other.happened()).await?;
        }
        // The event of a watch that is over wakes no other one, and each can be made again.
        let again = watch(&path(0))?;
        files[0].0.write_all(b"y")?;
        timeout(LONG, again.happened()).await?;
        assert!(watch(&folder.path().join("none")).is_err());
        Ok(())
    }

    #[test]
    fn a_watcher_that_could_not_be_started_is_started_the_next_time() -> anyhow::Result<()> {
        let slot = Mutex::new(None);
        let refused = Watcher::of(&slot, || Err(Errno::EMFILE)).err();
        assert_eq!(refused, Some(Errno::EMFILE));
        let first = Watcher::of(&slot, Watcher::start)?;
        let again = Watcher::of(&slot, || Err(Errno::EMFILE))?;
        assert!(Arc::ptr_eq(&first, &again), "there is one");
        first.waiting().over = Some(Errno::EBADF);
        let next = Watcher::of(&slot, Watcher::start)?;
        assert!(
            !Arc::ptr_eq(&first, &next),
            "that one hears nothing any more"
        );
        Ok(())
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_where_events_were_dropped() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        std::fs::write(&path, "")?;
        let watcher = Watcher::start()?;
        let waits = watch_by(Arc::clone(&watcher), &path)?;
        let dropped = InotifyEvent {
            wd: waits.watch,
            mask: AddWatchFlags::IN_Q_OVERFLOW,
            cookie: 0,
            name: None,
        };
        watcher.happened(&[dropped]);
        timeout(LONG, waits.happened()).await?;
        let again = watch_by(watcher, &path)?;
        std::fs::write(&path, "more")?;
        timeout(LONG, again.happened()).await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_leaves_the_others() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let (stays, goes) = (watch(&path)?, watch(&path)?);
        drop(goes);
        file.write_all(b"x")?;
        timeout(LONG, stays.happened()).await?;
        Ok(())
    }
}
