//! All templates of a cache: those that serve, and those that were removed and still have clones.
//!
//! ```text
//!  started ---> serving ---> going ---> (gone)
//!                  removed      its last clone has ended
//! ```
//! The list of those that serve is replaced as a whole: who reads it sees it before a change or after it. No lock is held
//! while anything is waited for.

use std::sync::{Arc, Mutex};

use crate::entry::Template;
use crate::sync::lock;

/// All templates of a cache.
pub(crate) struct Templates(Mutex<Lists>);

/// The templates at one moment.
pub(crate) struct Lists {
    /// Those that serve, in the order of the configuration.
    pub serving: Arc<[Arc<Template>]>,
    /// Those that were removed, and that are not gone yet.
    pub going: Vec<Arc<Template>>,
}

impl Templates {
    pub(crate) fn new(serving: Vec<Arc<Template>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Lists {
            serving: serving.into(),
            going: Vec::new(),
        })))
    }

    /// Those that serve.
    pub(crate) fn serving(&self) -> Arc<[Arc<Template>]> {
        Arc::clone(&lock(&self.0).serving)
    }

    /// Those that serve, and those that were removed and are not gone yet.
    pub(crate) fn all_alive(&self) -> Vec<Arc<Template>> {
        let lists = lock(&self.0);
        lists.serving.iter().chain(&lists.going).cloned().collect()
    }

    /// One that serves.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Template>> {
        lock(&self.0).find(name)
    }

    /// Changes the lists in one step, as everybody else sees it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Lists) -> T) -> T {
        change(&mut lock(&self.0))
    }

    /// Forgets one that is gone.
    pub(crate) fn forget(&self, gone: &Arc<Template>) {
        lock(&self.0).going.retain(|one| !Arc::ptr_eq(one, gone));
    }
}

impl Lists {
    /// One that serves.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Template>> {
        let mut serving = self.serving.iter();
        serving.find(|one| one.status.name() == name).cloned()
    }

    /// The last of this name that was removed and is not gone yet.
    pub(crate) fn going(&self, name: &str) -> Option<&Arc<Template>> {
        let mut going = self.going.iter().rev();
        going.find(|one| one.status.name() == name)
    }
}
