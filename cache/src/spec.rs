//! What an operator decides about a pool. The values were checked for form by whoever read the configuration.

use std::time::Duration;

use vmint_factory::{Argv, TemplateSpec};

/// Most clones that a pool may be resized to. Far above what one machine can hold; it keeps a mistyped number from
/// filling the memory of the host.
pub const MAX_CLONES: u32 = 10_000;

/// What a ready clone does until somebody takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standby {
    /// Its virtual CPUs run: a checkout needs no word with the guest.
    Running,
    /// Its virtual CPUs stand still and cost nothing: a checkout resumes it and sets its clock.
    Paused,
}

/// The settings of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Warm clones to keep.
    pub target: u32,
    /// Clones alive at most: launching, ready, leased and releasing ones together.
    pub max: u32,
    /// Clones made at the same time to refill the pool (at least one is).
    pub refill: u32,
    /// What ready clones do meanwhile.
    pub standby: Standby,
    /// Commands run in every clone before it is ready.
    pub on_clone: Vec<Argv>,
    /// An unused clone older than this is replaced; zero keeps it for ever.
    pub max_age: Duration,
    /// The lease of a checkout that names none; zero lasts until the release.
    pub ttl: Duration,
    /// Waiting checkouts at most.
    pub queue: usize,
}

/// What happens when a generation is not what would be built now: its kernel, its initial RAM disk, the hypervisor, the
/// processor or its description has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStale {
    /// It serves until another is built, which begins by itself.
    #[default]
    Rebuild,
    /// It serves, and that it is stale is only shown.
    Warn,
    /// Checkouts are refused until somebody has it rebuilt.
    Refuse,
}

/// One template and its pool.
#[derive(Clone, Debug)]
pub struct TemplatePlan {
    /// The virtual machine.
    pub spec: TemplateSpec,
    /// Its pool.
    pub pool: PoolSpec,
    /// What happens when its generation is stale.
    pub on_stale: OnStale,
}

/// What holds for all pools of the node.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// The longest lease; `None` sets no limit and allows leases that last until the release.
    pub max_ttl: Option<Duration>,
    /// Clones made at the same time on the whole node: as many as there are cores. More would only slow each other.
    pub refill_at_once: usize,
}
