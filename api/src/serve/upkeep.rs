//! Looking after the service's directories, which others may remove at any time.
//!
//! A directory that is gone is made again. One that another service has by now is that one's: this service hands nothing
//! out any more, since the next one would not know of it, and ends with its last sandbox.

use tokio::time::{Duration, MissedTickBehavior, interval};
use tracing::{error, warn};
use vmint_cache::Cache;
use vmint_factory::Factory;

/// How often they are looked at; before something is made in one of them it is looked at in any case.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Whether they are still this service's: not once another one has one of them.
pub(super) async fn owns_places(factory: &Factory) -> bool {
    let kept = factory.keep_places().await;
    !kept.is_err_and(|problem| problem.is_anothers())
}

/// Looks after them for as long as it is polled. What is wrong is told in the log, once.
pub(super) async fn keep_places(factory: Factory, cache: Cache) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        looks.tick().await;
        let Err(problem) = factory.keep_places().await else {
            told.clear();
            continue;
        };
        let text = problem.to_string();
        if text == told {
            continue;
        }
        if problem.is_anothers() {
            error!(
                "{text}; this service drains: it refuses checkouts, and ends with its last sandbox"
            );
            cache.drain(true).await;
        } else {
            warn!("{text}");
        }
        told = text;
    }
}
