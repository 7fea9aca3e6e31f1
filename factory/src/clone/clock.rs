//! The clock of a clone that waits, on a host whose clock is set meanwhile.
//!
//! A guest's clock is set when the clone is made or resumed, and goes by itself from then on. When somebody sets the host's
//! (an NTP client that finds it an hour off after the boot), the guests that wait still have the old time: whoever gets one
//! gets it with the new. A sandbox that somebody has keeps its own.

use super::handle::{Vm, lock};
use crate::clock::Moment;
use crate::guest::{GuestError, IdentityOrder};

impl Vm {
    /// Whether the host's wall clock was set since its guest's clock was: then that is off by as much. Two readings of a
    /// clock: for the moment before it is handed out.
    #[must_use]
    pub fn clock_is_off(&self) -> bool {
        self.clock_off_ns(Moment::now()).is_some()
    }

    fn clock_off_ns(&self, now: Moment) -> Option<i64> {
        now.wall_set_by(*lock(&self.clock_set_at))
    }

    /// Sets its guest's clock after the host's was set; nothing happens where it was not.
    ///
    /// # Errors
    /// When the guest does not set it.
    ///
    /// # Cancel safety
    /// A dropped call may have set it or not: end the clone.
    pub async fn set_clock(&self) -> Result<(), GuestError> {
        let now = Moment::now();
        let Some(clock_step_ns) = self.clock_off_ns(now) else {
            return Ok(());
        };
        let order = IdentityOrder {
            clock_step_ns,
            ..IdentityOrder::default()
        };
        let agent = self.agent("setting the guest's clock").await?;
        let set = self.live.unless_ended(agent.identify(&order)).await;
        set.map(drop)?;
        *lock(&self.clock_set_at) = now;
        Ok(())
    }
}
