//! The guest agent's own commands.

use std::path::Path;
use std::time::Duration;

use qapi_spec::Command;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::GuestError;
use crate::clock::{self, WallNs};
use crate::wire::{Call, Heard, Link, LinkError, LinkSettings, Strays};

/// Longest line taken while no command is under way that asked for more.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// What a guest may say between two replies that nothing asked for: more than the rest of the longest answer, which the
/// service before may not have read to its end.
const STRAY_MAX_BYTES: usize = 32 * 1024 * 1024;
/// How long the agent may take for one command. It answers in milliseconds; a loaded host makes that seconds.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(20);
/// How long one attempt to be heard by a booting guest waits before it dials again: an agent that was restarted in
/// between has lost what was said to it.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Newest protocol of our own agent that is understood here (`docs/agent-protocol.md`).
const PROTOCOL_MAX: u32 = 1;

/// Which agent a guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentKind {
    /// Our own: it gives an identity and runs commands in place.
    VmintAgent,
    /// Stock `qemu-ga`: it has to start the helper for that.
    QemuGa,
}

/// A synchronized channel to the agent of one guest.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    link: Link,
    pub(super) kind: AgentKind,
}

impl Agent {
    /// Dials the agent's socket and waits until the guest has answered, at most until `deadline`.
    ///
    /// The connection is made anew and synchronized, whoever used the channel before: in a clone the agent may still
    /// have the rest of the template's conversation to say. `losses` counts how often the guest has closed the port:
    /// one more, and everybody who waits for an answer is told at once that none will come.
    ///
    /// # Cancel safety
    /// Safe: a dropped call closes its connection.
    pub(crate) async fn connect(
        socket: &Path,
        kind: AgentKind,
        losses: &watch::Receiver<u64>,
        deadline: Instant,
    ) -> Result<Self, GuestError> {
        let begun = Instant::now();
        loop {
            let losses = Losses::after_now(losses);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GuestError::Silent {
                    command: "guest-sync-delimited",
                    after: begun.elapsed(),
                });
            }
            match Self::attempt(socket, kind, &losses, left.min(ATTEMPT)).await {
                // One that has ended will be started again.
                Err(GuestError::Silent { .. } | GuestError::AgentEnded) => {}
                outcome => return outcome,
            }
        }
    }

    /// The handle to an agent that was not dialled yet: whatever is said through it finds the channel closed.
    pub(crate) fn unheard(kind: AgentKind) -> Self {
        let link = Link::closed();
        Self { link, kind }
    }

    async fn attempt(
        socket: &Path,
        kind: AgentKind,
        losses: &Losses,
        patience: Duration,
    ) -> Result<Self, GuestError> {
        let unreachable = |e: std::io::Error| GuestError::Channel {
            command: "connect",
            source: LinkError::Io(e.kind()),
        };
        let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
        let settings = LinkSettings {
            max_line_bytes: MAX_LINE_BYTES,
            strays: Strays::Skipped {
                max_bytes: STRAY_MAX_BYTES,
            },
        };
        let agent = Self {
            link: Link::start_until(stream, settings, |_| {}, losses.clone().next()),
            kind,
        };
        let id = i64::from(rand::random::<u32>());
        let answer = agent
            .call::<_, i64>(
                Call::of(&qapi_qga::guest_sync_delimited { id }).delimited(),
                patience,
            )
            .await?;
        if answer != id {
            let reason = format!("it answered {answer} where {id} was asked for");
            return Err(GuestError::Proof {
                step: "guest-sync-delimited",
                reason,
            });
        }
        Ok(agent)
    }

    /// Asks which agent it is.
    pub(crate) async fn detect(self) -> Result<Self, GuestError> {
        #[derive(Deserialize)]
        struct Info {
            supported_commands: Vec<Known>,
            /// An agent of ours from before there were numbers has none.
            #[serde(default)]
            protocol: u32,
        }
        #[derive(Deserialize)]
        struct Known {
            name: String,
        }
        let none = qapi_spec::Empty {};
        let info: Info = self
            .call(Call::named("guest-info", &none), COMMAND_DEADLINE)
            .await?;
        let is_ours = info
            .supported_commands
            .iter()
            .any(|known| known.name == "vmint-identity");
        if is_ours && info.protocol > PROTOCOL_MAX {
            let reason = format!(
                "the guest's agent speaks protocol {}, and this version of vmint up to {PROTOCOL_MAX}: use the guest that came with it",
                info.protocol
            );
            return Err(GuestError::Proof {
                step: "guest-info",
                reason,
            });
        }
        let kind = if is_ours {
            AgentKind::VmintAgent
        } else {
            AgentKind::QemuGa
        };
        Ok(Self { kind, ..self })
    }

    /// Which agent it is.
    pub(crate) fn kind(&self) -> AgentKind {
        self.kind
    }

    /// Whether it will never answer again: another connection has to be made.
    pub(crate) fn is_lost(&self) -> bool {
        self.link.is_dead()
    }

    /// When it was heard from last, on this connection.
    pub(crate) fn heard(&self) -> &Heard {
        self.link.heard()
    }

    /// Waits until it will never answer again.
    pub(super) async fn lost(&self) -> GuestError {
        failed("stream", self.link.why_dead().await)
    }

    /// An id for a command that is spoken of later.
    pub(super) fn take_id(&self) -> u64 {
        self.link.take_id()
    }

    /// Runs one of the agent's commands.
    pub(super) async fn execute<C: Command>(&self, command: &C) -> Result<C::Ok, GuestError> {
        self.call(Call::of(command), COMMAND_DEADLINE).await
    }

    /// Whether the guest still answers.
    pub(crate) async fn ping(&self, deadline: Duration) -> Result<(), GuestError> {
        self.call::<_, qapi_spec::Empty>(Call::of(&qapi_qga::guest_ping {}), deadline)
            .await
            .map(drop)
    }

    /// How far the guest's clock is ahead of the host's, from the quickest of a few questions.
    pub(crate) async fn clock_ahead_ns(&self) -> Result<i64, GuestError> {
        const QUESTIONS: usize = 5;
        let mut best: Option<(Duration, i64)> = None;
        for _ in 0..QUESTIONS {
            let (asked, begun) = (WallNs::now(), Instant::now());
            let guest = self.execute(&qapi_qga::guest_get_time {}).await?;
            let took = begun.elapsed();
            let ahead = guest.saturating_sub(asked.plus(took / 2).0);
            if best.is_none_or(|(quickest, _)| took < quickest) {
                best = Some((took, ahead));
            }
        }
        Ok(best.map_or(0, |(_, ahead)| ahead))
    }

    /// Sends any command, by name.
    pub(super) async fn call<A: Serialize, T: DeserializeOwned>(
        &self,
        call: Call<'_, A>,
        deadline: Duration,
    ) -> Result<T, GuestError> {
        let command = call.name;
        let outcome = self.link.command(&call, deadline).await;
        outcome.map_err(|error| failed(command, error))
    }
}

fn failed(command: &'static str, error: LinkError) -> GuestError {
    match error {
        LinkError::Deadline { after } => GuestError::Silent { command, after },
        LinkError::Closed => GuestError::Closed,
        LinkError::Ended => GuestError::AgentEnded,
        LinkError::Refused(reason) => GuestError::Refused { command, reason },
        source @ (LinkError::Io(_)
        | LinkError::TooLong { .. }
        | LinkError::Stray { .. }
        | LinkError::Malformed { .. }) => GuestError::Channel { command, source },
    }
}

/// Longest reply that carries both streams of a command, each of so many bytes, in base64.
pub(super) fn reply_with_output(max_output_bytes: u64) -> usize {
    let output = usize::try_from(max_output_bytes).unwrap_or(usize::MAX);
    let encoded = output.div_ceil(3).saturating_mul(4);
    encoded.saturating_mul(2).saturating_add(MAX_LINE_BYTES)
}

/// How often the guest has closed the agent's port, seen from one moment on.
#[derive(Clone)]
struct Losses {
    count: watch::Receiver<u64>,
    at_first: u64,
}

impl Losses {
    fn after_now(count: &watch::Receiver<u64>) -> Self {
        let at_first = *count.borrow();
        Self {
            count: count.clone(),
            at_first,
        }
    }

    /// Waits for the next one.
    async fn next(mut self) -> LinkError {
        let at_first = self.at_first;
        let has_risen = self
            .count
            .wait_for(|count| *count != at_first)
            .await
            .is_ok();
        if !has_risen {
            // The monitor is gone: the connection itself will tell.
            std::future::pending::<()>().await;
        }
        LinkError::Ended
    }
}

/// How often a command's end is asked for: often at first, then in proportion to how long it has run, so that the
/// answer is late by an eighth at most and a long command costs the guest nothing.
pub(super) fn poll_interval(ran: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(2);
    const LONGEST: Duration = Duration::from_millis(100);
    (ran / 8).clamp(SHORTEST, LONGEST)
}

/// The difference between two clocks in words.
pub(super) fn describe_ns(ns: i64) -> String {
    format!("{:.1} ms", clock::ns_to_ms(ns))
}
