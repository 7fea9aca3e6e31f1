//! What an operator decides about a pool. The values were checked for form by whoever read the configuration.

use std::path::PathBuf;
use std::time::Duration;

use vmint_factory::{Argv, StaleField, TemplateSpec};

use crate::admission::MemoryBudget;

/// Most clones that a pool may be resized to. Far above what one machine can hold; it keeps a mistyped number from
/// filling the memory of the host.
pub const MAX_CLONES: u32 = 10_000;

/// `guest_timeout` of templates that have no description any more.
const GUEST_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// How long the guest of a sandbox may leave a question unanswered until the sandbox is shown as unresponsive, and
    /// again until it is ended; zero asks none. A key of the template, not of its pool.
    pub guest_timeout: Duration,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplatePlan {
    /// The virtual machine.
    pub spec: TemplateSpec,
    /// Its pool.
    pub pool: PoolSpec,
    /// What happens when its generation is stale.
    pub on_stale: OnStale,
}

/// What becomes of leased sandboxes when the service stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leased {
    /// They go on without it, and the next service takes them up.
    GoOn,
    /// They end with it.
    End,
}

/// What holds for all pools of the node.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// The longest lease; `None` sets no limit and allows leases that last until the release.
    pub max_ttl: Option<Duration>,
    /// Clones made at the same time on the whole node: as many as there are cores. More would only slow each other.
    pub refill_at_once: usize,
    /// Memory of the host that all virtual machines together may have; `None` sets no limit.
    pub memory: Option<MemoryBudget>,
}

/// One value of a plan, by its key in the configuration.
struct Value {
    key: &'static str,
    /// What a manifest calls it, where a generation is made of it.
    recipe: Option<&'static str>,
    text: String,
}

impl TemplatePlan {
    /// That of a template that is none any more: nothing is built, and nothing made.
    pub(crate) fn of_none(name: &str) -> Self {
        Self {
            spec: TemplateSpec::new(name, PathBuf::new(), PathBuf::new()),
            pool: PoolSpec {
                target: 0,
                max: MAX_CLONES,
                refill: 0,
                standby: Standby::Running,
                on_clone: Vec::new(),
                max_age: Duration::ZERO,
                ttl: Duration::ZERO,
                queue: 0,
                guest_timeout: GUEST_TIMEOUT,
            },
            on_stale: OnStale::Warn,
        }
    }

    /// The keys whose values differ in another plan: those of the template, then `pool.` those of its pool.
    pub(crate) fn differences(&self, new: &Self) -> Vec<String> {
        let Self {
            spec,
            pool,
            on_stale,
        } = self;
        let spec = differing(template_values(spec), template_values(&new.spec));
        let pool = differing(pool_values(pool), pool_values(&new.pool));
        let on_stale = (*on_stale != new.on_stale).then(|| "on_stale".to_owned());
        let has_other_timeout = self.pool.guest_timeout != new.pool.guest_timeout;
        let guest_timeout = has_other_timeout.then(|| "guest_timeout".to_owned());
        let spec = spec.map(|(was, _)| was.key.to_owned());
        let spec = spec.chain(on_stale).chain(guest_timeout);
        spec.chain(pool.map(|(was, _)| format!("pool.{}", was.key)))
            .collect()
    }
}

/// In what a generation that was made of one description differs from another one, as far as the descriptions tell.
pub(crate) fn stale_fields(made_of: &TemplateSpec, now: &TemplateSpec) -> Vec<StaleField> {
    differing(template_values(made_of), template_values(now))
        .filter_map(|(was, is)| {
            Some(StaleField {
                field: was.recipe?.to_owned(),
                built_with: was.text,
                now: is.text,
            })
        })
        .collect()
}

fn differing(was: Vec<Value>, is: Vec<Value>) -> impl Iterator<Item = (Value, Value)> {
    let both = was.into_iter().zip(is);
    both.filter(|(was, is)| was.text != is.text)
}

/// All values of a description. The pattern makes the compiler say when one is missing here.
fn template_values(spec: &TemplateSpec) -> Vec<Value> {
    let TemplateSpec {
        name: _,
        kernel,
        initrd,
        kernel_params,
        machine,
        cpu,
        vcpus,
        max_vcpus,
        memory_mib,
        max_memory_mib,
        vsock,
        ready_timeout,
        console_max_bytes,
        warmup,
        verify,
        keep_generations,
    } = spec;
    let made = |key, recipe, text| Value {
        key,
        recipe: Some(recipe),
        text,
    };
    let beside = |key, text| Value {
        key,
        recipe: None,
        text,
    };
    vec![
        made("kernel", "kernel", kernel.display().to_string()),
        made("initrd", "initrd", initrd.display().to_string()),
        made("kernel_params", "kernel_params", kernel_params.clone()),
        made("machine", "machine", machine.as_str().to_owned()),
        made("cpu", "cpu", cpu.clone().unwrap_or_default()),
        made("vcpus", "vcpus", vcpus.to_string()),
        made("max_vcpus", "max_vcpus", max_vcpus.to_string()),
        made("memory", "memory_mib", memory_mib.to_string()),
        made("max_memory", "max_memory_mib", max_memory_mib.to_string()),
        made("vsock", "vsock", vsock.to_string()),
        beside("ready_timeout", format!("{ready_timeout:?}")),
        beside("console_max", console_max_bytes.to_string()),
        made("warmup", "warmup", format!("{warmup:?}")),
        made("verify", "verify", format!("{verify:?}")),
        beside("keep_generations", keep_generations.to_string()),
    ]
}

/// All values of a pool, in the same way.
fn pool_values(pool: &PoolSpec) -> Vec<Value> {
    let PoolSpec {
        target,
        max,
        refill,
        standby,
        on_clone,
        max_age,
        ttl,
        queue,
        guest_timeout: _,
    } = pool;
    let value = |key, text| Value {
        key,
        recipe: None,
        text,
    };
    vec![
        value("target", target.to_string()),
        value("max", max.to_string()),
        value("refill", refill.to_string()),
        value("standby", format!("{standby:?}")),
        value("on_clone", format!("{on_clone:?}")),
        value("max_age", format!("{max_age:?}")),
        value("ttl", format!("{ttl:?}")),
        value("queue", queue.to_string()),
    ]
}
