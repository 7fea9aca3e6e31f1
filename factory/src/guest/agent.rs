//! The guest's agent, and the questions that concern nothing else.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use vmint_guest_protocol::frame::{Mark, NONCE_BYTES};
use vmint_guest_protocol::names::commands;

use super::GuestError;
use super::link::{Heard, Link};
use crate::clock::{self, WallNs};

/// How long the agent may take for one command. It answers in milliseconds; a loaded host makes that seconds.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

/// The agent of one guest, on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(super) link: Link,
}

/// No arguments.
#[derive(Serialize)]
pub(super) struct Nothing {}

/// An answer that says nothing.
#[derive(Deserialize)]
pub(super) struct Done {}

/// The guest's clock.
#[derive(Deserialize)]
struct Time {
    clock_realtime_ns: i64,
}

impl Agent {
    /// Dials the agent's socket and waits until the guest has answered, at most until `deadline`.
    ///
    /// The connection begins anew, whichever service used the port before: in a clone the agent may still have the rest
    /// of the template's conversation to say. `losses` counts how often the guest has closed the port: one more, and all
    /// that waits for an answer ends at once.
    ///
    /// # Cancel safety
    /// Safe: a dropped call closes its connection.
    pub(crate) async fn connect(
        socket: &Path,
        losses: &watch::Receiver<u64>,
        deadline: Instant,
    ) -> Result<Self, GuestError> {
        let link = Link::dial(socket, losses, deadline).await?;
        Ok(Self { link })
    }

    /// The handle to an agent that was not dialled yet: whatever is said through it finds the channel closed.
    pub(crate) fn unheard() -> Self {
        let link = Link::closed(Mark::own([0; NONCE_BYTES]));
        Self { link }
    }

    /// The newest protocol that the guest speaks.
    pub(crate) fn protocol(&self) -> u16 {
        self.link.mark().newest
    }

    /// The oldest one that it still speaks.
    pub(crate) fn protocol_oldest(&self) -> u16 {
        self.link.mark().oldest
    }

    /// Whether it will never answer again: another connection has to be made.
    pub(crate) fn is_lost(&self) -> bool {
        self.link.is_lost()
    }

    /// When it was heard from last, on this connection.
    pub(crate) fn heard(&self) -> &Heard {
        self.link.heard()
    }

    /// Whether the guest still answers.
    pub(crate) async fn ping(&self, deadline: Duration) -> Result<(), GuestError> {
        let Done {} = self.call(commands::PING, &Nothing {}, deadline).await?;
        Ok(())
    }

    /// The guest's clock, nanoseconds since 1970.
    pub(super) async fn time_ns(&self) -> Result<i64, GuestError> {
        let time: Time = self
            .call(commands::TIME, &Nothing {}, COMMAND_DEADLINE)
            .await?;
        Ok(time.clock_realtime_ns)
    }

    /// How far the guest's clock is ahead of the host's, from the quickest of a few questions.
    pub(crate) async fn clock_ahead_ns(&self) -> Result<i64, GuestError> {
        const QUESTIONS: usize = 5;
        let mut best: Option<(Duration, i64)> = None;
        for _ in 0..QUESTIONS {
            let (asked, begun) = (WallNs::now(), Instant::now());
            let guest = self.time_ns().await?;
            let took = begun.elapsed();
            let ahead = guest.saturating_sub(asked.plus(took / 2).0);
            if best.is_none_or(|(quickest, _)| took < quickest) {
                best = Some((took, ahead));
            }
        }
        Ok(best.map_or(0, |(_, ahead)| ahead))
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn call<A: Serialize, T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: &A,
        deadline: Duration,
    ) -> Result<T, GuestError> {
        let answer = self.link.ask(command, arguments, deadline).await?;
        answer.map_err(|refusal| refusal.of(command))
    }
}

/// The difference between two clocks in words.
pub(super) fn describe_ns(ns: i64) -> String {
    format!("{:.1} ms", clock::ns_to_ms(ns))
}
