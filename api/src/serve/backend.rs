//! What the cache mints from: the factory, opened on this host.

use std::sync::Arc;

use vmint_cache::Mint;
use vmint_factory::{Factory, OpenError};

use crate::config::Config;

/// Why the factory did not open.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The host.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// There is nothing to prove the accelerator with.
    #[error("the configuration has no template")]
    NoTemplate,
}

/// An open factory. Its locks are held until the last copy of `mint` is gone.
pub(super) struct Backend {
    /// Makes generations and clones.
    pub(super) mint: Arc<dyn Mint>,
    /// Clones made at the same time: more than there are cores would only slow each other.
    pub(super) cpus: usize,
}

impl Backend {
    /// Opens the factory: takes its locks and examines the host.
    ///
    /// # Errors
    /// Another service holds the locks, or the host lacks something.
    pub(super) async fn open(config: &Config) -> Result<Self, BackendError> {
        let guest = &config
            .templates
            .first()
            .ok_or(BackendError::NoTemplate)?
            .spec;
        let opened = Factory::open(config.host.clone(), guest).await;
        let factory = opened.map_err(|error| BackendError::Open(Box::new(error)))?;
        // Pools do not take clones of an earlier service in: what is dropped here ends.
        let specs: Vec<_> = config
            .templates
            .iter()
            .map(|plan| plan.spec.clone())
            .collect();
        drop(factory.adopt(&specs).await);
        Ok(Self {
            cpus: factory.host().cpus,
            mint: Arc::new(factory),
        })
    }
}
