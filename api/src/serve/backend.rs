//! What the cache mints from: the factory, opened on this host.

use std::io;
use std::sync::Arc;

use vmint_cache::Mint;
use vmint_factory::{Factory, Guardian, OpenError};

use crate::config::Config;

/// Why the factory did not open.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The host.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// The lease guardian.
    #[error("cannot start the lease guardian: {0}")]
    Guardian(#[source] io::Error),
    /// There is nothing to prove the accelerator with.
    #[error("the configuration has no template")]
    NoTemplate,
}

/// An open factory. Its locks are held until the last copy of `mint` is gone.
pub(super) struct Backend {
    /// Makes generations and clones.
    pub(super) mint: Arc<dyn Mint>,
    /// The same, for what is not the cache's business.
    pub(super) factory: Factory,
    /// Ends sandboxes on time when this service cannot.
    pub(super) guardian: Arc<Guardian>,
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
        let guardian = start_guardian(&factory).map_err(BackendError::Guardian)?;
        Ok(Self {
            cpus: factory.host().cpus,
            mint: Arc::new(factory.clone()),
            factory,
            guardian: Arc::new(guardian),
        })
    }
}

/// This very program, under its hidden command.
fn start_guardian(factory: &Factory) -> io::Result<Guardian> {
    let run_dir = factory.host().run_dir.as_os_str().to_owned();
    let [clones, builds] = factory.host().hypervisor_uids;
    let args = vec![
        "guard-leases".into(),
        "--run-dir".into(),
        run_dir,
        "--hypervisor-uid".into(),
        clones.to_string().into(),
        "--build-uid".into(),
        builds.to_string().into(),
    ];
    factory.start_guardian(std::env::current_exe()?, args)
}
