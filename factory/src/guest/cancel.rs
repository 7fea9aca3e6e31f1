//! Ending a command in the guest that nobody waits for any more.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::agent::Agent;
use crate::wire::Call;

/// A command in the guest that is to be killed when nobody waits for its end any more.
pub(super) struct Cancel {
    pub(super) request: u64,
    /// Nothing once it was answered.
    running: Option<(Agent, Option<OwnedSemaphorePermit>)>,
}

impl Cancel {
    pub(super) fn unless_answered(agent: &Agent, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            request: agent.take_id(),
            running: Some((agent.clone(), turn)),
        }
    }

    pub(super) fn answered(mut self) {
        self.running = None;
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        /// Nobody waits for it, but the command's turn ends with it.
        const DEADLINE: Duration = Duration::from_secs(10);
        #[derive(Serialize)]
        struct Arguments {
            request: u64,
        }
        // Without a runtime the program is ending, and the machine with it.
        let (Some((agent, turn)), Ok(runtime)) =
            (self.running.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let request = self.request;
        runtime.spawn(async move {
            let arguments = Arguments { request };
            let call = Call::named("vmint-cancel", &arguments);
            let cancelled: Result<serde::de::IgnoredAny, _> = agent.call(call, DEADLINE).await;
            if let Err(error) = cancelled {
                tracing::debug!(%error, "a command that nobody waits for was not cancelled");
            }
            drop(turn);
        });
    }
}
