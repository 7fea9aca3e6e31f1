//! A clone's own identity, and the proof that it has it.
//!
//! A clone wakes up as an exact copy: the same names, the same clock, the same random numbers to come. Three things
//! change that before anybody may use it, in one request to the agent:
//!
//! 1. The kernel's random numbers. The hypervisor gave the clone a new VM generation id, which makes the kernel
//!    reseed; the agent waits until the kernel's log says that it did, then stirs 64 bytes of the host's in.
//! 2. The clock is stepped by as much as the guest has slept. The step is counted, not measured in the guest, so it
//!    does not matter how long the order takes to arrive.
//! 3. Host name and machine id.
//!
//! The agent reads everything back from the kernel, and the host compares.
//!
//! The step is counted from the hypervisor's answers to `stop` and `cont`, which come late on a busy host: a clock that is
//! off for certain is stepped again, by as much as was measured, before it is refused.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use vmint_guest_protocol::names::commands;

use super::GuestError;
use super::ProcessControl;
use super::agent::{Agent, Nothing, describe_ns};
use super::clock_reading::{ClockReading, check_clock};
use crate::clock::WallNs;
use crate::memory;

/// How long the agent may take for an identity, the wait for the kernel's reseed included.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long the kernel may take to notice its new generation id: an interrupt and a work item.
const RESEED_WAIT_MS: u32 = 10_000;
/// How often a clock that is off is stepped again. Once is enough, unless that very answer is held up too.
const CLOCK_CORRECTIONS: usize = 2;
/// Bytes of the host's randomness for each clone: the size of the kernel's own seed, twice.
const ENTROPY_BYTES: usize = 64;

/// Who a clone is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its host name.
    pub hostname: String,
    /// Its `/etc/machine-id`: 32 hexadecimal digits.
    pub machine_id: String,
}

impl Identity {
    /// A new identity with this host name.
    #[must_use]
    pub fn new(hostname: String) -> Self {
        Self {
            hostname,
            machine_id: uuid::Uuid::new_v4().simple().to_string(),
        }
    }
}

/// What a clone's guest made of its new random numbers, as digests: compared between clones, used for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityDigest {
    /// Of bytes of getrandom(2).
    pub random: String,
    /// Of a version 4 UUID of such bytes.
    pub uuid: String,
}

/// What the guest is to become.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentityOrder {
    pub(crate) identity: Option<Identity>,
    /// How much the guest's clock is behind, nanoseconds.
    pub(crate) clock_step_ns: i64,
    /// Whether the kernel was given a new generation id.
    pub(crate) expect_reseed: bool,
}

/// What the guest says it has become. Read back from its kernel, not from the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdentityProof {
    pub(crate) hostname: String,
    pub(crate) machine_id: String,
    /// 32 fresh bytes of the kernel's, or a hash of such: compared between clones, used for nothing.
    pub(crate) random: String,
    pub(crate) uuid: String,
    pub(crate) clock_realtime_ns: i64,
    pub(crate) vmgenid_reseed: bool,
}

impl IdentityProof {
    /// What may be kept of it.
    pub(crate) fn digest(&self) -> IdentityDigest {
        IdentityDigest {
            random: memory::bytes_digest(self.random.as_bytes()),
            uuid: memory::bytes_digest(self.uuid.as_bytes()),
        }
    }
}

/// What the template said when it was made ready to be saved.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Prepared {
    pub(crate) process_control: ProcessControl,
}

impl Agent {
    /// Gives the guest its identity and checks its proof.
    pub(crate) async fn identify(
        &self,
        order: &IdentityOrder,
    ) -> Result<IdentityProof, GuestError> {
        let (proof, first) = self.prove(order).await?;
        check(order, &proof)?;
        let mut reading = self.certain_reading(first).await?;
        for _ in 0..CLOCK_CORRECTIONS {
            let Some(ahead_ns) = reading.beyond_tolerance_ns() else {
                break;
            };
            tracing::debug!(
                "the guest's clock is ahead by {}: it is stepped again",
                describe_ns(ahead_ns)
            );
            let again = IdentityOrder {
                clock_step_ns: ahead_ns.saturating_neg(),
                ..IdentityOrder::default()
            };
            let (_, first) = self.prove(&again).await?;
            reading = self.certain_reading(first).await?;
        }
        check_clock(reading)?;
        Ok(proof)
    }

    /// Sends one order; answers with the proof, and what it says of the clock.
    async fn prove(
        &self,
        order: &IdentityOrder,
    ) -> Result<(IdentityProof, ClockReading), GuestError> {
        let asked = (WallNs::now(), Instant::now());
        let mut entropy = [0; ENTROPY_BYTES];
        rand::rng().fill_bytes(&mut entropy);
        let arguments = Arguments::new(order, &entropy);
        let proof: IdentityProof = self.call(commands::IDENTITY, &arguments, DEADLINE).await?;
        let reading = ClockReading::new(proof.clock_realtime_ns, asked.0, asked.1.elapsed());
        Ok((proof, reading))
    }

    /// Makes the template ready to be saved.
    pub(crate) async fn prepare(&self) -> Result<Prepared, GuestError> {
        self.call(commands::PREPARE, &Nothing {}, DEADLINE).await
    }
}

/// An order as the guest reads it.
#[derive(Serialize)]
struct Arguments<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_id: Option<&'a str>,
    entropy: String,
    clock_step_ns: i64,
    expect_reseed: bool,
    reseed_wait_ms: u32,
}

impl<'a> Arguments<'a> {
    fn new(order: &'a IdentityOrder, entropy: &[u8]) -> Self {
        Self {
            hostname: order
                .identity
                .as_ref()
                .map(|identity| identity.hostname.as_str()),
            machine_id: order
                .identity
                .as_ref()
                .map(|identity| identity.machine_id.as_str()),
            entropy: BASE64_STANDARD.encode(entropy),
            clock_step_ns: order.clock_step_ns,
            expect_reseed: order.expect_reseed,
            reseed_wait_ms: RESEED_WAIT_MS,
        }
    }
}

pub(super) fn wrong(reason: String) -> Result<(), GuestError> {
    Err(GuestError::Proof {
        step: "identity",
        reason,
    })
}

fn check(order: &IdentityOrder, proof: &IdentityProof) -> Result<(), GuestError> {
    if let Some(identity) = &order.identity {
        if proof.hostname != identity.hostname {
            return wrong(format!(
                "the host name is {:?}, not {:?}",
                proof.hostname, identity.hostname
            ));
        }
        if proof.machine_id != identity.machine_id {
            return wrong(format!(
                "the machine id is {:?}, not {:?}",
                proof.machine_id, identity.machine_id
            ));
        }
    }
    if order.expect_reseed && !proof.vmgenid_reseed {
        return wrong("the kernel has not reseeded its random numbers".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(order: &IdentityOrder, clock: i64) -> IdentityProof {
        let identity = order
            .identity
            .clone()
            .unwrap_or_else(|| Identity::new("x".into()));
        IdentityProof {
            hostname: identity.hostname,
            machine_id: identity.machine_id,
            random: "00".into(),
            uuid: "u".into(),
            clock_realtime_ns: clock,
            vmgenid_reseed: true,
        }
    }

    #[test]
    fn a_proof_that_is_not_the_order_is_refused() {
        let order = IdentityOrder {
            identity: Some(Identity::new("job-1".into())),
            clock_step_ns: 0,
            expect_reseed: true,
        };
        let good = proof(&order, 1_010_000_000);
        assert!(check(&order, &good).is_ok());
        let wrong = [
            IdentityProof {
                hostname: "template".into(),
                ..good.clone()
            },
            IdentityProof {
                machine_id: "0".repeat(32),
                ..good.clone()
            },
            IdentityProof {
                vmgenid_reseed: false,
                ..good.clone()
            },
        ];
        for proof in wrong {
            assert!(
                matches!(check(&order, &proof), Err(GuestError::Proof { .. })),
                "{proof:?}"
            );
        }
    }

    #[test]
    fn what_is_kept_of_a_proof_is_not_what_the_guest_said() {
        let mut proof = proof(&IdentityOrder::default(), 0);
        proof.random = "random numbers".to_owned();
        let digest = proof.digest();
        assert!(!digest.random.contains(&proof.random), "{digest:?}");
        assert_ne!(digest.random, digest.uuid);
        assert_eq!(digest, proof.digest());
    }

    #[test]
    fn an_order_is_written_as_the_protocol_says() -> serde_json::Result<()> {
        let order = IdentityOrder {
            identity: Some(Identity {
                hostname: "job-1".into(),
                machine_id: "ab".repeat(16),
            }),
            clock_step_ns: -5,
            expect_reseed: true,
        };
        let own = serde_json::to_string(&Arguments::new(&order, &[1, 255]))?;
        let id = "ab".repeat(16);
        assert_eq!(
            own,
            format!(
                r#"{{"hostname":"job-1","machine_id":"{id}","entropy":"Af8=","clock_step_ns":-5,"expect_reseed":true,"reseed_wait_ms":10000}}"#
            )
        );
        Ok(())
    }
}
