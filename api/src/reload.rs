//! The configuration is read again while the service runs.
//!
//! ```text
//!  SIGHUP, POST /v1/config/reload ── one at a time ── the file, checked as a whole
//!     mistakes: nothing changes, all of them are told ──┴── none: the templates are what it says
//! ```
//! What `[server]` and `[host]` say holds from the next start on: which of their keys differ is told.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use toml::{Table, Value};
use tracing::{error, info, warn};
use vmint_cache::{Cache, ReloadError};
use vmint_factory::lock;

use crate::config::{
    Config, Examined, LoadError, Places, Problems, check_presence, load_whole, path_of,
};
use crate::telemetry::Metrics;

/// How long the file may take to be read: it is small, but may be on a disk of somebody else's.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The tables of the file that hold from the start to the end of the service.
const FIXED_TABLES: [&str; 2] = ["server", "host"];

/// Has the configuration read again.
pub struct Reloader {
    file: Option<PathBuf>,
    cache: Cache,
    metrics: Arc<Metrics>,
    /// What the service was started with.
    started: Started,
    known: Mutex<Known>,
    turn: tokio::sync::Mutex<()>,
}

struct Started {
    document: Table,
    max_ttl: Option<Duration>,
}

/// What is known of the configuration.
#[derive(Clone, Debug)]
pub struct Known {
    /// The file that it was read from; none where it is the default values alone.
    pub path: Option<PathBuf>,
    /// When what holds now was read.
    pub loaded_at: Timestamp,
    /// What came of the last time that it was to be read again.
    pub last_reload: Option<LastReload>,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// When.
    pub at: Timestamp,
    /// Why nothing was changed.
    pub error: Option<String>,
}

/// What was changed.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The templates.
    pub templates: vmint_cache::Reloaded,
    /// Keys that differ, and hold from the next start on.
    pub needs_restart: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum ReloadFailure {
    /// The file cannot be read, or has mistakes.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file was not read in time.
    #[error("the configuration was not read within {} s", after.as_secs())]
    Slow {
        /// How long it was waited for.
        after: Duration,
    },
    /// The cache takes no changes.
    #[error(transparent)]
    Cache(#[from] ReloadError),
    /// A mistake in the service.
    #[error("the configuration could not be read again: the log says more")]
    Broken,
}

impl Reloader {
    /// For a service that was started with what this file says.
    #[must_use]
    pub fn new(
        file: Option<&Path>,
        examined: Examined,
        cache: Cache,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        // The service may be somewhere else by the time that it reads the file again.
        let file = file.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let known = Known {
            path: path_of(file.as_deref()).map(Path::to_owned),
            loaded_at: Timestamp::now(),
            last_reload: None,
        };
        let Examined {
            document, config, ..
        } = examined;
        Arc::new(Self {
            file,
            cache,
            metrics,
            started: Started {
                document,
                max_ttl: config.max_ttl,
            },
            known: Mutex::new(known),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// What is known of the configuration.
    #[must_use]
    pub fn known(&self) -> Known {
        self.lock_known().clone()
    }

    /// Reads the configuration again, and has it hold. One at a time does; what came of it is in the log.
    ///
    /// # Errors
    /// Nothing was changed.
    ///
    /// # Cancel safety
    /// Dropped, it is done all the same.
    pub async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadFailure> {
        let this = Arc::clone(self);
        let done = tokio::spawn(async move { this.in_turn().await }).await;
        done.unwrap_or(Err(ReloadFailure::Broken))
    }

    async fn in_turn(&self) -> Result<Reloaded, ReloadFailure> {
        let _turn = self.turn.lock().await;
        let result = self.apply().await;
        match &result {
            Ok(reloaded) => log(reloaded),
            Err(error) => {
                error!(%error, "the configuration was not read again; the one from before holds on")
            }
        }
        let now = Timestamp::now();
        let mut known = self.lock_known();
        if result.is_ok() {
            known.path = path_of(self.file.as_deref()).map(Path::to_owned);
            known.loaded_at = now;
        }
        known.last_reload = Some(LastReload {
            at: now,
            error: result.as_ref().err().map(ToString::to_string),
        });
        result
    }

    async fn apply(&self) -> Result<Reloaded, ReloadFailure> {
        let file = self.file.clone();
        let reading = spawn_blocking(move || read(file.as_deref()));
        let Ok(read) = timeout(READ_TIMEOUT, reading).await else {
            let after = READ_TIMEOUT;
            return Err(ReloadFailure::Slow { after });
        };
        let examined = read.map_err(|_| ReloadFailure::Broken)??;
        self.started.check_leases(&examined)?;
        let needs_restart = self.started.differences(&examined.document);
        let templates = self.cache.reload(examined.config.templates).await?;
        for name in &templates.added {
            self.metrics.start_at_zero(name);
        }
        Ok(Reloaded {
            templates,
            needs_restart,
        })
    }

    fn lock_known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

/// All that `vmint config check` asks: what it refuses would not start again either.
fn read(file: Option<&Path>) -> Result<Examined, LoadError> {
    let examined = load_whole(file, &Places::of_this_host())?;
    check_presence(&examined.config, file)?;
    Ok(examined)
}

impl Started {
    /// The keys beside those of the templates that have other values than at the start.
    fn differences(&self, document: &Table) -> Vec<String> {
        let mut keys = Vec::new();
        for table in FIXED_TABLES {
            let of = |document: &Table| document.get(table).and_then(Value::as_table).cloned();
            let (was, is) = (of(&self.document), of(document).unwrap_or_default());
            let differs =
                |key: &&String| was.as_ref().and_then(|was| was.get(*key)) != is.get(*key);
            keys.extend(
                is.keys()
                    .filter(differs)
                    .map(|key| format!("{table}.{key}")),
            );
        }
        keys
    }

    /// Default leases must be possible with the longest lease that holds now, which the file may have raised.
    fn check_leases(&self, examined: &Examined) -> Result<(), LoadError> {
        let Some(max) = self.max_ttl else {
            return Ok(());
        };
        let mut problems = Problems::default();
        let Config { templates, .. } = &examined.config;
        for plan in templates {
            if plan.pool.ttl.is_zero() || plan.pool.ttl > max {
                let reason = format!(
                    "is longer than host.max_ttl was when the service was started, {} s",
                    max.as_secs()
                );
                let key = format!("templates.{}.pool.ttl", plan.spec.name);
                let value = format!("{}s", plan.pool.ttl.as_secs());
                problems.add(
                    &key,
                    value,
                    reason,
                    "use a shorter one, or start the service again",
                );
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let place = examined.place.clone();
        Err(LoadError::Problems { place, problems })
    }
}

fn log(reloaded: &Reloaded) {
    let vmint_cache::Reloaded {
        added,
        changed,
        removed,
        unchanged,
    } = &reloaded.templates;
    let changed: Vec<&str> = changed.iter().map(|(name, _)| name.as_str()).collect();
    info!(
        added = added.join(" "),
        changed = changed.join(" "),
        removed = removed.join(" "),
        unchanged = unchanged.join(" "),
        "the configuration was read again"
    );
    if !reloaded.needs_restart.is_empty() {
        let keys = reloaded.needs_restart.join(" ");
        warn!(keys, "what these keys say holds from the next start on");
    }
}
