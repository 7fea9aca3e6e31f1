//! The configuration of the running service.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::shown;
use crate::reload;

/// Where the configuration comes from, and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Configuration {
    /// The file; null where the built-in default values are all there is.
    #[schema(required = true, example = "/etc/vmint/vmint.toml")]
    pub path: Option<String>,
    /// When what holds now was read.
    #[schema(value_type = String, format = DateTime)]
    pub loaded_at: Timestamp,
    /// The last time that it was to be read again; null when it never was.
    #[schema(required = true)]
    pub last_reload: Option<LastReload>,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LastReload {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whether it holds now.
    pub ok: bool,
    /// Why not: every mistake in the file. The configuration from before holds on.
    #[schema(required = true)]
    pub error: Option<String>,
}

/// What the configuration has changed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Templates that were not there before; they are built and their pools filled.
    pub added: Vec<String>,
    /// Templates with other values.
    #[schema(example = json!(["default"]))]
    pub changed: Vec<String>,
    /// For which keys they have other values.
    #[schema(example = json!(["templates.default.memory", "templates.default.pool.target"]))]
    pub changed_keys: Vec<String>,
    /// Templates that are there no more; their leased sandboxes go on.
    pub removed: Vec<String>,
    /// Templates that were left alone.
    pub unchanged: Vec<String>,
    /// Keys whose values hold from the next start of the service on.
    #[schema(example = json!(["server.listen"]))]
    pub needs_restart: Vec<String>,
}

impl From<reload::Reloaded> for Reloaded {
    fn from(reloaded: reload::Reloaded) -> Self {
        let reload::Reloaded {
            templates,
            needs_restart,
        } = reloaded;
        let keys = |(name, keys): &(String, Vec<String>)| {
            let of = |key: &String| format!("templates.{name}.{key}");
            keys.iter().map(of).collect::<Vec<_>>()
        };
        Self {
            changed_keys: templates.changed.iter().flat_map(keys).collect(),
            changed: templates
                .changed
                .into_iter()
                .map(|(name, _)| name)
                .collect(),
            added: templates.added,
            removed: templates.removed,
            unchanged: templates.unchanged,
            needs_restart,
        }
    }
}

impl From<reload::Known> for Configuration {
    fn from(known: reload::Known) -> Self {
        Self {
            path: known.path.map(|path| path.display().to_string()),
            loaded_at: shown(known.loaded_at),
            last_reload: known.last_reload.map(|last| LastReload {
                at: shown(last.at),
                ok: last.error.is_none(),
                error: last.error,
            }),
        }
    }
}
