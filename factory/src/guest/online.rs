//! What was plugged into a guest is brought online by it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use vmint_guest_protocol::names::commands;

use super::GuestError;
use super::agent::Agent;
use crate::Size;

/// How long the guest may take to bring up what was plugged in. It takes a tenth of a second; on a host under load that
/// makes seconds.
const WAIT: Duration = Duration::from_secs(6);
/// How much longer its answer is waited for: the guest itself says what is missing.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Arguments {
    vcpus: u32,
    memory_mib: u64,
    wait_ms: u64,
}

/// What the guest's kernel has online. Read from it, not from the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Online {
    pub(crate) vcpus: u32,
    /// Of the memory blocks that are online.
    pub(crate) memory_mib: u64,
    /// What the kernel has to give, which is less than its blocks hold.
    pub(crate) mem_total_kib: u64,
}

impl Agent {
    /// Has the guest bring everything online that was plugged in, and checks that it has this size.
    pub(crate) async fn online(&self, size: Size, plugged_mib: u64) -> Result<Online, GuestError> {
        const STEP: &str = commands::ONLINE;
        let arguments = Arguments {
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            wait_ms: u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX),
        };
        let online: Online = self.call(STEP, &arguments, WAIT + GRACE).await?;
        check(size, plugged_mib, online)
            .map_err(|reason| GuestError::Proof { step: STEP, reason })?;
        Ok(online)
    }
}

fn check(size: Size, plugged_mib: u64, online: Online) -> Result<(), String> {
    if online.vcpus < size.vcpus {
        return Err(format!(
            "{} CPUs are online, not {}",
            online.vcpus, size.vcpus
        ));
    }
    if online.memory_mib < size.memory_mib {
        return Err(format!(
            "memory blocks of {} MiB are online, not of {}",
            online.memory_mib, size.memory_mib
        ));
    }
    // Blocks that were plugged in are all for use; what the kernel keeps for itself is in those it booted with.
    if online.mem_total_kib < plugged_mib * 1024 {
        return Err(format!(
            "MemTotal is {} KiB after {plugged_mib} MiB were plugged in",
            online.mem_total_kib
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_has_less_than_it_was_given_is_not_believed() {
        let size = Size {
            vcpus: 2,
            memory_mib: 512,
        };
        let good = Online {
            vcpus: 2,
            memory_mib: 512,
            mem_total_kib: 470_000,
        };
        assert_eq!(check(size, 256, good), Ok(()));
        let wrong = [
            Online { vcpus: 1, ..good },
            Online {
                memory_mib: 384,
                ..good
            },
            Online {
                mem_total_kib: 210_000,
                ..good
            },
        ];
        for online in wrong {
            assert!(check(size, 256, online).is_err(), "{online:?}");
        }
    }
}
