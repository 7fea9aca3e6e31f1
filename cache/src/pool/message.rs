//! What is said to a pool's actor, and the bounded channel it comes through.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::core::{CloneKey, Drain, Event, Ticket};
use super::grant::Grant;
use crate::mint::{CloneFailure, LiveClone, LiveGeneration};
use crate::request::OnEmpty;
use crate::uniqueness::Unique;
use crate::view::SandboxView;

/// Messages that may wait for the actor. It takes some microseconds for each, so a full channel is a burst, and the
/// senders wait their turn.
const INBOX_MESSAGES: usize = 1024;

/// A message to a pool's actor.
pub(super) enum Message {
    /// A checkout: to be answered by its deadline.
    Checkout {
        ticket: Ticket,
        ask: Ask,
        reply: oneshot::Sender<Result<Grant, Refused>>,
    },
    /// A clone was made.
    Launched {
        clone: CloneKey,
        vm: Arc<dyn LiveClone>,
        unique: Unique,
    },
    /// A clone could not be made.
    LaunchFailed {
        clone: CloneKey,
        failure: CloneFailure,
    },
    /// Anything else that happened to a clone or to a checkout.
    Happened(Event),
    /// A lease begins anew; answered with `None` when there is none.
    Renew {
        clone: CloneKey,
        ttl: Option<Duration>,
        reply: oneshot::Sender<Option<SandboxView>>,
    },
    /// A sandbox goes; answered when its process is gone, or by a dropped sender when it is not leased.
    Release {
        clone: CloneKey,
        reply: oneshot::Sender<()>,
    },
    /// New sizes; answered once they hold.
    Resize {
        target: Option<u32>,
        max: Option<u32>,
        reply: oneshot::Sender<Result<(), Sizes>>,
    },
    /// The pool's settings have changed; answered once the new ones hold.
    Reconfigured { done: oneshot::Sender<()> },
    /// Another generation. `on_trial`: see [`Event::Published`].
    Publish {
        generation: Arc<dyn LiveGeneration>,
        on_trial: bool,
        reply: oneshot::Sender<()>,
    },
    /// The pool drains, or no longer does; answered once that is so.
    Drain {
        whose: Drain,
        drains: bool,
        reply: oneshot::Sender<()>,
    },
}

/// What a checkout asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub on_empty: OnEmpty,
    pub deadline: Instant,
    pub ttl: Option<Duration>,
    pub again: bool,
}

/// Sizes that contradict each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub target: u32,
    pub max: u32,
}

/// Why a checkout got no grant.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    Empty {
        reason: String,
        has_generation: bool,
        retry_after: Duration,
    },
    QueueFull {
        queue: usize,
    },
    Draining,
    Closed,
}

/// When a lease began and when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseTimes {
    pub leased_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

impl LeaseTimes {
    /// A lease that begins now.
    pub(super) fn begin(ttl: Option<Duration>) -> Self {
        let leased_at = Timestamp::now();
        Self {
            leased_at,
            expires_at: ttl.map(|ttl| leased_at.saturating_add(ttl).unwrap_or(Timestamp::MAX)),
        }
    }
}

/// The sending side of an actor's channel.
#[derive(Clone)]
pub(super) struct Outbox {
    sender: mpsc::Sender<Message>,
    runtime: Handle,
}

/// The actor is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Outbox {
    /// Both sides of a channel.
    pub(super) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, inbox) = mpsc::channel(INBOX_MESSAGES);
        (
            Self {
                sender,
                runtime: Handle::current(),
            },
            inbox,
        )
    }

    /// Sends, and waits while the channel is full.
    ///
    /// # Cancel safety
    /// Dropped, the message was either sent or is gone.
    pub(super) async fn send(&self, message: Message) -> Result<(), Gone> {
        self.sender.send(message).await.map_err(|_| Gone)
    }

    /// Sends from where nothing can wait, as from a destructor. At most one such message exists for each clone and each
    /// checkout, so those that do not find room at once are few, and wait in tasks.
    pub(super) fn post(&self, event: Event) {
        self.post_message(Message::Happened(event));
    }

    /// The same, for what is no event of the core's.
    pub(super) fn post_message(&self, message: Message) {
        if let Err(TrySendError::Full(message)) = self.sender.try_send(message) {
            let sender = self.sender.clone();
            self.runtime
                .spawn(async move { sender.send(message).await });
        }
    }
}
