//! Whether clones can be made: failures in a row, the pause after them, and the reason that an operator sees.
//!
//! ```text
//!            failure            third failure in a row
//!  sound ------------> paused ------------------------> degraded      the pool pauses, then tries one clone at a time
//!    ^                   |                                 |
//!    +-------------------+----------- first success -------+
//!
//!  damage: degraded at once, and no clone is tried until another generation is published
//! ```
//! A failure never closes anything: ready clones are still served, and the pool recovers by itself.

use std::time::Duration;

use vmint_factory::Phase;

use super::ids::{Epoch, Moment};
use crate::backoff::Backoff;

/// Failures in a row after which a pool calls itself degraded: one can be chance, and so can two at once.
pub(super) const DEGRADED_AFTER: u32 = 3;
/// The pause after a failure. A clone takes some tens of milliseconds: a quarter of a second gives a burst time to end,
/// and half a minute is how long an operator can be asked to wait for a recovery.
pub(super) const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(250),
    cap: Duration::from_secs(30),
};

/// Whether clones can be made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    not_before: Moment,
    damaged: Option<Epoch>,
    degraded: Option<String>,
}

impl Health {
    /// Whether a launch of this generation may begin now.
    pub(crate) fn allows(&self, now: Moment, epoch: Epoch) -> bool {
        self.damaged != Some(epoch) && now >= self.not_before
    }

    /// Whether the last launch failed, so that only one at a time is tried.
    pub(crate) fn is_probing(&self) -> bool {
        self.failures > 0
    }

    /// Whether this generation is known to be damaged.
    pub(crate) fn is_damaged(&self, epoch: Epoch) -> bool {
        self.damaged == Some(epoch)
    }

    /// Why clones cannot be made.
    pub(crate) fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }

    /// When the next launch may begin, if that is later than now.
    pub(crate) fn pause_ends(&self, now: Moment) -> Option<Moment> {
        (self.not_before > now).then_some(self.not_before)
    }

    /// A launch failed. Returns whether the pool is degraded by it, and was not before.
    pub(crate) fn failed(&mut self, now: Moment, phase: Phase, reason: &str, roll: f64) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.after(BACKOFF.pause(self.failures, roll));
        if self.failures < DEGRADED_AFTER {
            return false;
        }
        let text = format!(
            "{} clones failed in a row, the last in phase {}: {reason}",
            self.failures,
            phase.as_str()
        );
        self.degraded.replace(text).is_none()
    }

    /// A launch failed because its generation is damaged.
    pub(crate) fn found_damage(&mut self, epoch: Epoch, phase: Phase, reason: &str) {
        self.failures = self.failures.saturating_add(1);
        self.damaged = Some(epoch);
        self.degraded = Some(format!(
            "the generation is damaged, found in phase {} of a clone: {reason}; the template is being rebuilt",
            phase.as_str()
        ));
    }

    /// A launch succeeded. Returns whether the pool was degraded.
    pub(crate) fn succeeded(&mut self, epoch: Epoch) -> bool {
        if self.is_damaged(epoch) {
            return false;
        }
        let was_degraded = self.degraded.is_some();
        *self = Self::default();
        was_degraded
    }

    /// There is another generation: it may be tried at once, and proves itself with its first clone.
    pub(crate) fn new_generation(&mut self) {
        self.damaged = None;
        self.not_before = Moment::default();
    }
}
