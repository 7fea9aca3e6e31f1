//! How often guests are asked whether they still answer: the node's share of one core for it, divided among all guests.
//!
//! A question costs the service, the hypervisor and the guest processor time, most of it the guest's. Each pool asks its
//! guests in turn (`pool/core/pulse.rs`), none more often than once a pace; the pace is so long that all guests of the
//! node together stay within the share. A checkout of a guest that was not heard from lately asks it once more, so a
//! longer pace costs time there and never certainty.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::pool::SHORTEST_PACE;

/// What one question costs, on all sides together, most of it in the guest: 1.47 ms of a processor under emulation, the
/// dearest way (`factory/tests/alive.rs`, a build for tests on a busy host).
const QUESTION_COST: Duration = Duration::from_micros(1500);
/// All questions together take at most one part in so many of one core: 1 %.
const PARTS_OF_A_CORE: u32 = 100;

/// The guests of a node that are asked in turn. Cheap to clone; all clones are the same count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asking(Arc<AtomicUsize>);

impl Asking {
    /// The part of one pool.
    pub(crate) fn share(&self) -> Share {
        Share {
            asking: self.clone(),
            guests: 0,
        }
    }

    /// The shortest time between two questions to one guest.
    fn pace(&self) -> Duration {
        let guests = u32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let apart = QUESTION_COST.saturating_mul(PARTS_OF_A_CORE);
        SHORTEST_PACE.max(apart.saturating_mul(guests))
    }
}

/// The guests of one pool that are asked in turn. Dropped, they are none.
#[derive(Debug)]
pub(crate) struct Share {
    asking: Asking,
    guests: usize,
}

impl Share {
    /// Sets how many there are, and answers the pace of the node.
    pub(crate) fn set(&mut self, guests: usize) -> Duration {
        let count = &self.asking.0;
        if guests > self.guests {
            count.fetch_add(guests - self.guests, Ordering::Relaxed);
        } else {
            count.fetch_sub(self.guests - guests, Ordering::Relaxed);
        }
        self.guests = guests;
        self.asking.pace()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_guests_of_a_node_share_one_hundredth_of_a_core() {
        let asking = Asking::default();
        let (mut one, mut other) = (asking.share(), asking.share());
        assert_eq!(
            one.set(2),
            SHORTEST_PACE,
            "few are asked as often as may be"
        );
        for guests in [50, 1_000, 10_000] {
            let pace = other.set(guests);
            let asked_per_second = (guests + 2) as f64 / pace.as_secs_f64();
            let share = asked_per_second * QUESTION_COST.as_secs_f64();
            assert!(share <= 0.01 + f64::EPSILON, "{guests}: {share}");
        }
        drop(other);
        assert_eq!(
            one.set(2),
            SHORTEST_PACE,
            "and again when the others are gone"
        );
    }
}
