//! A published generation, and who still needs its files.
//!
//! ```text
//!  published, current --> kept (among the newest) --> surplus --> its last holder is gone --> removed
//! ```
//!
//! What always holds:
//! - All holders of one generation share one [`GenerationFiles`], however often it was looked up: the [`Registry`]
//!   remembers it as long as somebody holds it. So the files of a generation that is in use are never removed.
//! - A generation that nobody needs any more is marked as surplus; its files go with the last holder, or at once where
//!   there is none. Who decides which are surplus is `keep.rs`.
//! - A service that dies loses the marks, and the next one sets them anew: nothing about them is on disk. One that stops
//!   and leaves clones running leaves the files of their generations, too.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use super::check::{Look, check};
use super::keep;
use super::manifest::{self, Manifest};
use super::store;
use crate::host::{PlaceError, Places};
use crate::memory::Digests;
use crate::shortage::is_shortage;
use crate::sync::lock;
use crate::{GenerationId, SizeRange, TemplateSpec};

/// The files of a generation, held by everybody who needs them.
#[derive(Debug)]
pub(crate) struct GenerationFiles {
    path: PathBuf,
    /// Where they are listed as held.
    held: Arc<Mutex<Held>>,
    is_surplus: AtomicBool,
    /// Somebody has found that they are not what was published.
    is_damaged: AtomicBool,
    /// A clone of it goes on without us: whether they are needed is the next service's to say.
    is_left: AtomicBool,
}

/// The generations that somebody holds, by their directories.
type Held = HashMap<PathBuf, Weak<GenerationFiles>>;

/// The generations that somebody holds. Bounded by the clones and by what is kept.
///
/// `held` is locked for a moment only, to hold files or to find out that nobody does: what is removed is removed with it
/// locked, so that nothing is held which is about to go. A template's turn to publish is taken before it, never after.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    held: Arc<Mutex<Held>>,
    /// One turn for each template, by its directory.
    publishing: Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>,
    /// Where they are.
    places: Option<Arc<Places>>,
}

impl Registry {
    pub(crate) fn of(places: Arc<Places>) -> Self {
        Self {
            places: Some(places),
            ..Self::default()
        }
    }

    /// Makes sure that the template path is there and is this service's: only then may anything in it be changed.
    ///
    /// # Errors
    /// When it cannot be made again, or another service has it by now.
    pub(crate) fn renew_place(&self) -> io::Result<()> {
        let Some(places) = &self.places else {
            return Ok(());
        };
        let renewed = places.templates.renew();
        renewed.map(drop).map_err(PlaceError::into_io)
    }

    /// Changes what is current and what is kept of one template, while nobody else does. `change` must not read whole
    /// files: builds of the template wait for it.
    pub(crate) fn publishing<T>(&self, store: &Path, change: impl FnOnce() -> T) -> T {
        let turn = {
            let mut turns = lock(&self.publishing);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(store.to_owned()).or_default())
        };
        let _turn = lock(&turn);
        change()
    }

    /// The files in a directory: those that others hold already, where there are such. From here on nobody removes them.
    pub(crate) fn hold(&self, path: &Path) -> Arc<GenerationFiles> {
        self.hold_in(&mut lock(&self.held), path)
    }

    fn hold_in(&self, held: &mut Held, path: &Path) -> Arc<GenerationFiles> {
        held.retain(|_, files| files.strong_count() > 0);
        if let Some(files) = held.get(path).and_then(Weak::upgrade) {
            return files;
        }
        let files = Arc::new(GenerationFiles {
            path: path.to_owned(),
            held: Arc::clone(&self.held),
            is_surplus: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
        });
        held.insert(path.to_owned(), Arc::downgrade(&files));
        files
    }

    /// The files in a directory, if anybody holds them.
    pub(super) fn held(&self, path: &Path) -> Option<Arc<GenerationFiles>> {
        lock(&self.held).get(path).and_then(Weak::upgrade)
    }

    /// Removes the manifest of a directory whose files nobody holds: it is no generation any more. Otherwise returns its
    /// files.
    pub(super) fn end_unheld(&self, path: &Path) -> io::Result<Option<Arc<GenerationFiles>>> {
        let held = lock(&self.held);
        match held.get(path).and_then(Weak::upgrade) {
            Some(files) => Ok(Some(files)),
            None => manifest::remove(path).map(|()| None),
        }
    }
}

impl GenerationFiles {
    /// Says whether anybody needs them beside their holders.
    pub(super) fn set_surplus(&self, is_surplus: bool) {
        self.is_surplus.store(is_surplus, Ordering::Release);
    }

    /// Says that they are not what was published: no clone is to be made of them any more, and they are not kept.
    pub(super) fn found_damaged(&self) {
        self.is_damaged.store(true, Ordering::Release);
    }

    /// Has the files of a published generation that has lost its manifest go with their last holder: who decides what is
    /// kept does not see them.
    pub(super) fn go_if_lost(&self) {
        if !manifest::is_there(&self.path) {
            self.set_surplus(true);
        }
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }
}

impl Drop for GenerationFiles {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        // Another holder has come between the end of the last one and this: the files are kept for that one.
        let holders = held.get(&self.path).map_or(0, Weak::strong_count);
        if holders > 0 {
            return;
        }
        held.remove(&self.path);
        if self.is_surplus.load(Ordering::Acquire) && !self.is_left.load(Ordering::Acquire) {
            let path = std::mem::take(&mut self.path);
            // Without its manifest it is none any more, however long the rest takes to be removed.
            match manifest::remove(&path) {
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "an old generation cannot be removed");
                }
                Ok(()) => remove_aside(path),
            }
        }
    }
}

/// Removes a generation. Giving a few hundred MiB back takes tens of milliseconds: not on a thread that answers
/// requests.
pub(super) fn remove_aside(path: PathBuf) {
    remove_by(path, |removal| {
        let thread = thread::Builder::new().name("removal".to_owned());
        thread.spawn(removal).map(drop)
    });
}

/// Removes a generation on a thread, and here where there can be none: then it takes its time, and does not stay.
fn remove_by(path: PathBuf, start: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>) {
    let remove_and_tell = |path: &Path| {
        if let Err(error) = remove(path) {
            tracing::warn!(path = %path.display(), %error, "an old generation cannot be removed");
        }
    };
    let its = path.clone();
    if let Err(error) = start(Box::new(move || remove_and_tell(&its))) {
        tracing::warn!(%error, "no thread can be started to remove an old generation");
        remove_and_tell(&path);
    }
}

/// Removes a generation that is none any more. It blocks.
///
/// # Errors
/// When it is not gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
        Ok(()) => {
            let generation = path.file_name().unwrap_or_default().to_string_lossy();
            tracing::info!(%generation, "a generation that nobody needs any more is removed");
        }
    }
    store::remove_folder_of(path);
    Ok(())
}

/// One immutable build of a template. Every clone holds it, so its files stay until the last one has ended.
#[derive(Debug)]
pub struct Generation {
    files: Arc<GenerationFiles>,
    manifest: Manifest,
    spec: TemplateSpec,
    registry: Arc<Registry>,
}

impl Generation {
    pub(super) fn new(
        registry: &Arc<Registry>,
        path: &Path,
        manifest: Manifest,
        spec: TemplateSpec,
    ) -> Self {
        Self {
            files: registry.hold(path),
            manifest,
            spec,
            registry: Arc::clone(registry),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &GenerationId {
        &self.manifest.generation
    }

    /// Its template's name.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.manifest.template
    }

    /// The description that it fulfils.
    #[must_use]
    pub fn spec(&self) -> &TemplateSpec {
        &self.spec
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The sizes that its clones can have.
    #[must_use]
    pub fn sizes(&self) -> SizeRange {
        self.manifest.sizes()
    }

    /// What the memory file takes of the host's memory, bytes: once, however many clones map it. Where its name is gone
    /// those who map it keep what it took when it was built.
    #[must_use]
    pub fn memory_bytes_on_disk(&self) -> u64 {
        const STAT_BLOCK_BYTES: u64 = 512;
        match fs::metadata(self.memory()) {
            Ok(file) => file.blocks() * STAT_BLOCK_BYTES,
            Err(_) => self.manifest.memory.allocated_bytes,
        }
    }

    /// Says that another generation has taken its place. It stays on disk as long as it is among the
    /// [`TemplateSpec::keep_generations`] newest; beyond that its files go with the last clone of it.
    pub fn retire(&self) {
        let store = self.files.path.parent().unwrap_or(Path::new(""));
        self.registry.publishing(store, || self.let_others_go(None));
    }

    /// Says that it is current: its files stay, whoever holds them.
    pub(super) fn is_needed(&self) {
        self.files.set_surplus(false);
    }

    /// Lets go of the generations of its template that are not kept; `before` was current before the current one. The
    /// caller has its turn to publish.
    pub(super) fn let_others_go(&self, before: Option<&GenerationId>) {
        let store = self.files.path.parent().unwrap_or(Path::new(""));
        let place = self.registry.renew_place();
        let keep = self.spec.keep_generations;
        let surplus = place.and_then(|()| keep::surplus(store, keep, before, &self.registry));
        if let Err(error) = surplus.and_then(|surplus| keep::let_go(surplus, &self.registry)) {
            let template = self.template();
            tracing::warn!(template, %error, "old generations cannot be removed");
        }
    }

    /// Says that a clone of it is left running for the next service: its files stay, whoever lets go of them here.
    pub(crate) fn is_left(&self) {
        self.files.is_left.store(true, Ordering::Release);
    }

    /// Says that its files are not what was published: no clone can be made of it any more, and it is not kept.
    pub(crate) fn found_damaged(&self) {
        self.files.found_damaged();
    }

    /// What is wrong with its files; a file is read only when it has changed. It blocks.
    pub(crate) fn damage(&self, digests: &Digests) -> Option<String> {
        let damage = check(&self.files.path, digests, Look::Changes).err();
        let damage = damage.filter(|e| !is_shortage(e))?;
        self.found_damaged();
        self.files.go_if_lost();
        Some(damage.to_string())
    }

    /// Makes the link to the current generation again where somebody has removed it: without it the next service finds
    /// nothing. The caller knows that this is the current one.
    pub(crate) fn keep_link(&self) {
        let store = self.files.path.parent().unwrap_or(Path::new(""));
        if store::has_link(store) {
            return;
        }
        self.registry
            .publishing(store, || self.make_link_again(store));
    }

    fn make_link_again(&self, store: &Path) {
        if store::has_link(store) {
            return;
        }
        let made = self.registry.renew_place();
        let (template, generation) = (self.template(), self.id());
        match made.and_then(|()| store::link(store, generation)) {
            Ok(()) => {
                tracing::warn!(template, %generation, "the link to the current generation was removed, and is made again");
            }
            Err(error) => {
                tracing::warn!(template, %generation, %error, "the link to the current generation was removed, and cannot be made again");
            }
        }
    }

    pub(crate) fn memory(&self) -> PathBuf {
        store::memory_path(&self.files.path)
    }

    pub(crate) fn state(&self) -> PathBuf {
        store::state_path(&self.files.path)
    }

    pub(crate) fn kernel_stub(&self) -> PathBuf {
        store::kernel_stub_path(&self.files.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiting::wait_until;

    #[test]
    fn files_that_are_taken_up_while_their_last_holder_lets_go_stay() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("g1");
        fs::create_dir(&path)?;
        fs::write(path.join("manifest.json"), "{}")?;
        let registry = Registry::default();
        let last = registry.hold(&path);
        last.set_surplus(true);
        let count = Arc::downgrade(&last);
        let mut held = lock(&registry.held);
        let letting_go = std::thread::spawn(move || drop(last));
        wait_until("its last holder lets go", || count.strong_count() == 0);
        // It is on its way to be removed, and waits for the lock.
        let taken_up = registry.hold_in(&mut held, &path);
        drop(held);
        letting_go.join().map_err(|_| io::ErrorKind::Other)?;
        assert!(path.join("manifest.json").exists());
        assert!(registry.held(&path).is_some(), "its new holder is known");
        taken_up.set_surplus(true);
        drop(taken_up);
        assert!(!path.join("manifest.json").exists());
        Ok(())
    }

    #[test]
    fn a_removal_without_a_thread_is_done_all_the_same() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("default/g1");
        fs::create_dir_all(&path)?;
        remove_by(path.clone(), |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(!path.exists());
        remove(&path)?;
        // It is not gone where it cannot be removed.
        fs::create_dir_all(folder.path().join("default"))?;
        fs::write(&path, "no directory")?;
        assert!(remove(&path).is_err() && path.exists());
        Ok(())
    }

    #[test]
    fn templates_publish_beside_each_other() {
        let registry = Registry::default();
        let both = registry.publishing(Path::new("/t/a"), || {
            registry.publishing(Path::new("/t/b"), || 2)
        });
        assert_eq!(both, 2);
        registry.publishing(Path::new("/t/c"), || {});
        assert_eq!(lock(&registry.publishing).len(), 1, "turns are not hoarded");
    }
}
