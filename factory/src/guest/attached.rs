//! Asking the guest for devices that were plugged.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Agent, GuestError};
use crate::wire::Call;

/// How much longer than the guest's own wait its answer may take.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
const COMMAND: &str = "vmint-attached";

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Wanted {
    macs: Vec<String>,
    serials: Vec<String>,
    wait_ms: u64,
}

#[derive(Deserialize)]
struct Seen {
    nics: Vec<Named>,
    disks: Vec<Named>,
}

/// One of them. The guest says again which it is; the order is what counts.
#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Agent {
    /// Waits until the guest has an interface with each of these addresses and a disk with each of these serials.
    /// Answers their names, in the same order.
    pub(crate) async fn attached(
        &self,
        macs: Vec<String>,
        serials: Vec<String>,
        within: Duration,
    ) -> Result<(Vec<String>, Vec<String>), GuestError> {
        let counts = (macs.len(), serials.len());
        let wanted = Wanted {
            macs,
            serials,
            wait_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        };
        let seen: Seen = self
            .call(Call::named(COMMAND, &wanted), within + ANSWER_GRACE)
            .await?;
        if (seen.nics.len(), seen.disks.len()) != counts {
            return Err(GuestError::Proof {
                step: COMMAND,
                reason: format!(
                    "it names {} nics and {} disks of {} and {}",
                    seen.nics.len(),
                    seen.disks.len(),
                    counts.0,
                    counts.1
                ),
            });
        }
        let names = |named: Vec<Named>| named.into_iter().map(|device| device.name).collect();
        Ok((names(seen.nics), names(seen.disks)))
    }
}
