//! Makes a fresh clone a machine of its own, and proves it.
//!
//! Clones of one template start as the same machine to the last bit. The order here is what makes them differ:
//!
//! 1. the clock is stepped;
//! 2. the kernel's own reseed after the restore (vmgenid) is seen in its log;
//! 3. the host's entropy is added on top and the generator reseeded with it;
//! 4. hostname and machine-id are set;
//! 5. only then is anything drawn from the generator, and everything is *read back*, never echoed.
//!
//! After the first failure nothing further is done.

mod names;
mod report;
mod reseed;
mod sources;
mod wanted;

pub(crate) use names::set_hostname;
pub(crate) use sources::Sources;
pub(crate) use wanted::{Identity, hostname};

use std::time::Duration;

use crate::failure::{Doing, Failure};
use crate::sys;

/// How long the kernel's reseed is waited for where the host does not say: it takes a few milliseconds.
const RESEED_WAIT: Duration = Duration::from_millis(1000);

/// Takes on the identity, and says in JSON what the clone is now.
pub(crate) fn renew(wanted: &Identity, sources: &mut Sources) -> Result<String, Failure> {
    if let Some(step_ns) = wanted.clock_step_ns.filter(|step_ns| *step_ns != 0) {
        sys::step_clock_realtime(step_ns).doing(|| format!("step the clock by {step_ns} ns"))?;
    }
    let wait = wanted.reseed_wait_ms.map(Duration::from_millis);
    let reseeded = match wanted.expect_reseed {
        Some(true) => sources
            .log()?
            .wait_for_reseed(wait.unwrap_or(RESEED_WAIT))?,
        _ => sources.log()?.has_reseed()?,
    };
    if let Some(entropy) = &wanted.entropy {
        reseed::add_host_entropy(sources.urandom()?, entropy)?;
    }
    if let Some(name) = &wanted.hostname {
        names::set_hostname(name)?;
    }
    if let Some(id) = &wanted.machine_id {
        names::set_machine_id(id)?;
    }
    report::read_back(reseeded, sources)
}

/// What a template needs before it is saved: the random generator is seeded (one that is not would not be reseeded in the
/// clones, and they would all draw the same numbers), the kernel log's mark is set, so that a clone that looks for the
/// kernel's reseed sees newer records only, and what the clone will need is open.
pub(crate) fn prepare(sources: &mut Sources) -> Result<(), Failure> {
    // Blocks until the generator is ready, which the kernel promises for every machine within seconds.
    sys::random_bytes(&mut [0u8; 16])
        .doing(|| "wait for the kernel's random generator".to_owned())?;
    sys::clear_kernel_log_mark().doing(|| "set the kernel log's mark".to_owned())?;
    sources.open()
}
