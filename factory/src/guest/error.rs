//! How talking to a guest fails.

use std::time::Duration;

use crate::wire::LinkError;

/// The guest, or the way to it, failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GuestError {
    /// The agent did not answer in time; the channel is given up.
    #[error("the guest agent did not answer {command} within {}", crate::text::duration(*.after))]
    Silent {
        /// The command that was sent.
        command: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The channel to the agent is closed.
    #[error("the channel to the guest agent is closed")]
    Closed,
    /// The agent ended; another one may be started in the guest.
    #[error("the guest's agent ended")]
    AgentEnded,
    /// The channel to the agent failed.
    #[error("the channel to the guest agent failed during {command}")]
    Channel {
        /// The command that was sent.
        command: &'static str,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// The agent answered with an error.
    #[error("the guest agent refused {command}: {reason}")]
    Refused {
        /// The command that was sent.
        command: &'static str,
        /// The agent's own words.
        reason: String,
    },
    /// The helper program in the guest failed.
    #[error("the guest's helper failed in {step}: {reason}")]
    Helper {
        /// What it was asked to do.
        step: &'static str,
        /// Its own words.
        reason: String,
    },
    /// The guest's answer is not what it must be.
    #[error("the guest's answer to {step} is wrong: {reason}")]
    Proof {
        /// What was asked.
        step: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The virtual machine ended meanwhile.
    #[error("the virtual machine ended: {reason}")]
    Ended {
        /// How.
        reason: String,
    },
    /// The monitor refused.
    #[error("the hypervisor could not {action}: {reason}")]
    Monitor {
        /// What was wanted.
        action: &'static str,
        /// Why not.
        reason: String,
    },
}
