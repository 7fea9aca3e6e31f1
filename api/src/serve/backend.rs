//! What the cache mints from: the factory, opened on this host.

use std::sync::Arc;

use vmint_cache::Mint;

use crate::config::Config;

/// Why the factory did not open.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The factory is not built in yet.
    #[error("the factory is not there yet")]
    Missing,
}

/// An open factory, or a stand-in for one. Its locks are held until the last copy of `mint` is gone.
pub struct Backend {
    /// Makes generations and clones.
    pub mint: Arc<dyn Mint>,
    /// Clones made at the same time: more than there are cores would only slow each other.
    pub cpus: usize,
}

impl Backend {
    /// Opens the factory: takes its locks and examines the host.
    ///
    /// # Errors
    /// Another service holds the locks, or the host lacks something.
    pub async fn open(_config: &Config) -> Result<Self, BackendError> {
        Err(BackendError::Missing)
    }
}
