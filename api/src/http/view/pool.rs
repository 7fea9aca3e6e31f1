//! Pools and the clones in them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmint_cache::{CloneView, PoolView};

use super::time::seconds;

/// One pool.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// The template whose clones it keeps.
    #[schema(example = "default")]
    pub template: String,
    /// Warm clones to keep.
    #[schema(example = 2)]
    pub target: u32,
    /// Clones alive at most, leased ones included.
    #[schema(example = 16)]
    pub max: u32,
    /// Warm, unused clones.
    pub ready: usize,
    /// Clones being made.
    pub launching: usize,
    /// Sandboxes.
    pub leased: usize,
    /// Clones being ended.
    pub releasing: usize,
    /// Checkouts that wait.
    pub waiters: usize,
    /// Checkouts that found a ready clone.
    pub hits: u64,
    /// Checkouts that found none.
    pub misses: u64,
    /// Why clones cannot be made at present; null when they can.
    #[schema(required = true)]
    pub degraded: Option<String>,
    /// Every living clone, oldest first.
    pub clones: Vec<PoolClone>,
}

/// One living clone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolClone {
    /// Its id; also that of its sandbox once it is leased.
    #[schema(example = "bcdfghjkmnpq")]
    pub id: String,
    /// `launching`, `ready`, `leased` or `releasing`.
    #[schema(example = "ready", pattern = "^(launching|ready|leased|releasing)$")]
    pub state: String,
    /// The generation it was made from.
    #[schema(required = true)]
    pub generation: Option<String>,
    /// Its age, seconds.
    #[schema(example = 12.5)]
    pub age_s: f64,
}

/// Every pool.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    /// One for each template.
    pub pools: Vec<Pool>,
}

impl From<PoolView> for Pool {
    fn from(view: PoolView) -> Self {
        Self {
            template: view.template,
            target: view.target,
            max: view.max,
            ready: view.ready,
            launching: view.launching,
            leased: view.leased,
            releasing: view.releasing,
            waiters: view.waiters,
            hits: view.hits,
            misses: view.misses,
            degraded: view.degraded,
            clones: view.clones.into_iter().map(PoolClone::from).collect(),
        }
    }
}

impl From<CloneView> for PoolClone {
    fn from(view: CloneView) -> Self {
        Self {
            id: view.id,
            state: view.state.as_str().to_owned(),
            generation: view.generation,
            age_s: seconds(view.age),
        }
    }
}
