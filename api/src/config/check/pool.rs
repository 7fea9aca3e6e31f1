//! `[templates.NAME.pool]`

use std::time::Duration;

use vmint_cache::{MAX_CLONES, PoolSpec, Standby};

use super::Section;
use crate::config::requested::Pool;

/// Clones of one pool.
const CLONES_MAX: i64 = MAX_CLONES as i64;
/// Clones made at the same time: the cache also bounds them by the number of cores.
const REFILL: (i64, i64) = (1, 256);
/// Waiting checkouts: each holds a connection.
const QUEUE: (i64, i64) = (0, 100_000);
/// Values where the file has a mistake in them.
const FALLBACK_MAX_AGE: Duration = Duration::from_secs(60 * 60);
const FALLBACK_TTL: Duration = Duration::from_secs(5 * 60);

pub(super) fn check(
    pool: &Pool,
    max_ttl: Option<Duration>,
    guest_timeout: Duration,
    mut section: Section<'_>,
) -> PoolSpec {
    let max = section.number("max", pool.max, (1, CLONES_MAX), 16);
    let target = section.number("target", pool.target, (0, CLONES_MAX), 0);
    if target > max {
        let reason = format!("is more than max, which is {max}");
        section.tell(
            "target",
            target,
            reason,
            format!("use at most {max}, or raise max"),
        );
    }
    let choices = [("running", Standby::Running), ("paused", Standby::Paused)];
    PoolSpec {
        target: target.min(max),
        max,
        refill: section.number("refill", pool.refill, REFILL, 1),
        standby: section.choice("standby", &pool.standby, &choices, Standby::Running),
        on_clone: pool.on_clone.clone(),
        max_age: section.duration("max_age", &pool.max_age, FALLBACK_MAX_AGE),
        ttl: ttl(&pool.ttl, max_ttl, &mut section),
        queue: section.number("queue", pool.queue, QUEUE, 0),
        guest_timeout,
    }
}

/// The default lease, which must be one that a checkout could ask for.
fn ttl(text: &str, max_ttl: Option<Duration>, section: &mut Section<'_>) -> Duration {
    let ttl = section.duration("ttl", text, FALLBACK_TTL);
    if let Some(max_ttl) = max_ttl {
        let mend = format!(
            "use at most \"{}s\", or raise host.max_ttl (\"0\" = no limit)",
            max_ttl.as_secs()
        );
        if ttl.is_zero() {
            section.tell(
                "ttl",
                text,
                "means until released, and host.max_ttl forbids that",
                mend,
            );
        } else if ttl > max_ttl {
            section.tell("ttl", text, "is longer than host.max_ttl", mend);
        }
    }
    ttl
}
