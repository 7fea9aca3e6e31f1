//! A clone that is given more than its template has.
//!
//! ```text
//!  plug CPUs -> plug memory -> the guest brings them online -> the guest says what it has
//! ```
//! What was plugged in cannot be taken back: a clone that did not take all of it is neither of its old size nor of its
//! new one, and its owner ends it. So nothing here undoes a step.

use super::Vm;
use crate::Accel;
use crate::driver::MonitorError;
use crate::guest::{Agent, GuestError};
use crate::size::{Size, SizeError};
use crate::vm::LiveVm;

/// Why a clone was not made larger. Part of it may have been done: the clone is fit for nothing but its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrowError {
    /// No clone of the template can have this size. Nothing was done.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The hypervisor did not plug it in.
    #[error("the hypervisor could not plug {what} in: {source}")]
    Plug {
        /// `virtual CPUs` or `memory`.
        what: &'static str,
        /// Why not.
        source: MonitorError,
    },
    /// The guest did not bring it online.
    #[error("the guest did not bring online what was plugged in: {source}{hint}")]
    Online {
        /// Why not.
        source: GuestError,
        /// What the cause may be, where one is known.
        hint: &'static str,
    },
    /// The machine ended meanwhile.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// A guest's kernel that finds no sign of a hypervisor it knows takes the CPUs that come later for a mistake of the
/// firmware.
const TCG_HINT: &str = "; under emulation (accel \"tcg\") a guest kernel of 6.9 or newer refuses virtual CPUs that are \
                        plugged in: use an older one, or KVM";

impl Vm {
    /// Gives it more virtual CPUs and memory: at least so much, and in whole steps. Answers what it has then, by the
    /// word of its guest.
    ///
    /// # Errors
    /// See [`GrowError`]: end the clone, unless it is [`GrowError::Size`].
    ///
    /// # Cancel safety
    /// A dropped call may leave any part of it done: end the clone.
    pub async fn grow(&self, wanted: Size) -> Result<Size, GrowError> {
        let mut held = self.size.lock().await;
        let own = *held;
        let range = self.generation().sizes();
        let size = range.fit(Some(wanted.vcpus), Some(wanted.memory_mib))?;
        let size = Size {
            vcpus: size.vcpus.max(own.vcpus),
            memory_mib: size.memory_mib.max(own.memory_mib),
        };
        if size == own {
            return Ok(own);
        }
        let vcpus = size.vcpus - own.vcpus;
        let memory_mib = size.memory_mib - own.memory_mib;
        self.live
            .unless_ended(plug(&self.live, vcpus, memory_mib))
            .await?;
        let agent = self.agent("growing").await?;
        let online = online(&agent, size, memory_mib);
        match self.live.unless_ended(online).await {
            Ok(()) => {}
            Err(source @ (GuestError::Refused { .. } | GuestError::Proof { .. })) => {
                let emulated = self.generation().manifest().recipe.accel == Accel::Tcg;
                let hint = if emulated && vcpus > 0 { TCG_HINT } else { "" };
                return Err(GrowError::Online { source, hint });
            }
            Err(other) => return Err(other.into()),
        }
        *held = size;
        Ok(size)
    }
}

async fn plug(live: &LiveVm, vcpus: u32, memory_mib: u64) -> Result<(), GrowError> {
    let failed = |what| move |source| GrowError::Plug { what, source };
    if vcpus > 0 {
        let plugged = live.monitor.plug_vcpus(vcpus).await;
        plugged.map_err(failed("virtual CPUs"))?;
    }
    if memory_mib > 0 {
        let plugged = live.monitor.plug_memory(memory_mib).await;
        plugged.map_err(failed("memory"))?;
    }
    Ok(())
}

async fn online(agent: &Agent, size: Size, plugged_mib: u64) -> Result<(), GuestError> {
    let online = agent.online(size, plugged_mib).await?;
    tracing::debug!(?size, ?online, "a clone has grown");
    Ok(())
}
