//! Pools and the clones in them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vmint_cache::{CloneView, DrainView, PoolView, RollView};

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
    /// Those of them that are of the current generation.
    pub updated: usize,
    /// Clones being made.
    pub launching: usize,
    /// Sandboxes.
    pub leased: usize,
    /// Those of them whose guest has not answered for `guest_timeout`.
    pub unresponsive: usize,
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
    /// Whether it drains, by itself or with the whole service.
    pub draining: bool,
    /// The way from one generation to another; null when it is on none.
    #[schema(required = true)]
    pub roll: Option<Roll>,
    /// Every living clone, oldest first.
    pub clones: Vec<PoolClone>,
}

/// A pool on its way from one generation to another.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Roll {
    /// The generation before.
    #[schema(example = "20250102-030405-bcdf")]
    pub from: String,
    /// The new one.
    #[schema(example = "20250102-040506-ghjk")]
    pub to: String,
    /// Ready clones of the new one.
    pub updated: usize,
    /// All ready clones.
    pub ready: usize,
    /// Warm clones to keep.
    pub target: u32,
    /// Seconds until the new generation is given up, if no other clone of it gets ready before; null while none of it is
    /// being made, and where it is not given up.
    #[schema(required = true, example = 60.0)]
    pub deadline_s: Option<f64>,
}

/// How far the service is with its drain.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// Whether it drains.
    pub draining: bool,
    /// Whether it drains and nothing is left.
    pub drained: bool,
    /// Sandboxes.
    pub leased: usize,
    /// Warm, unused clones.
    pub ready: usize,
    /// Clones being made.
    pub launching: usize,
    /// Clones being ended.
    pub releasing: usize,
    /// Whether the service ends when it is drained.
    pub exit: bool,
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
            updated: view.updated,
            launching: view.launching,
            leased: view.leased,
            unresponsive: view.unresponsive,
            releasing: view.releasing,
            waiters: view.waiters,
            hits: view.hits,
            misses: view.misses,
            degraded: view.degraded,
            draining: view.draining,
            roll: view.roll.map(Roll::from),
            clones: view.clones.into_iter().map(PoolClone::from).collect(),
        }
    }
}

impl From<RollView> for Roll {
    fn from(view: RollView) -> Self {
        Self {
            from: view.from,
            to: view.to,
            updated: view.updated,
            ready: view.ready,
            target: view.target,
            deadline_s: view.deadline.map(seconds),
        }
    }
}

impl Drain {
    /// What a service would say that has ended because it was drained.
    pub(crate) fn done() -> Self {
        Self {
            draining: true,
            drained: true,
            leased: 0,
            ready: 0,
            launching: 0,
            releasing: 0,
            exit: true,
        }
    }
}

impl From<DrainView> for Drain {
    fn from(view: DrainView) -> Self {
        Self {
            draining: view.draining,
            drained: view.drained,
            leased: view.leased,
            ready: view.ready,
            launching: view.launching,
            releasing: view.releasing,
            exit: view.exit,
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
