//! What is said to a pool's actor, and the channel it comes through: one order for all, and a bound on all that can wait.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::core::{CloneKey, Drain, Event, Ticket};
use super::grant::Grant;
use crate::mint::{CloneFailure, LiveClone, LiveGeneration};
use crate::request::OnEmpty;
use crate::sandbox::Sandbox;
use crate::uniqueness::Unique;
use crate::view::SandboxView;

/// Messages of senders that can wait, until one of them does. The actor takes some microseconds for each, so a full channel is a burst, and the
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
        reply: oneshot::Sender<Option<Renewed>>,
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
    /// `None` is never.
    pub deadline: Option<Instant>,
    pub ttl: Option<Duration>,
    pub again: bool,
}

/// Sizes that contradict each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub target: u32,
    pub max: u32,
}

/// A lease that began anew. Dropped it is recorded: by the caller, or where that one has gone by a task beside the actor,
/// which does not wait for the file.
pub(super) struct Renewed {
    pub sandbox: Arc<Sandbox>,
    pub view: SandboxView,
}

impl Drop for Renewed {
    fn drop(&mut self) {
        if let Err(error) = self.sandbox.record_lease() {
            warn!(id = self.view.id, %error, "the renewed lease was not recorded");
        }
    }
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

/// A message on its way. It gives up its place when the actor takes it.
struct Sent {
    message: Message,
    _place: Option<OwnedSemaphorePermit>,
}

/// The sending side of an actor's channel. What is sent through it, in whichever way, arrives in that order.
#[derive(Clone)]
pub(super) struct Outbox {
    sender: mpsc::UnboundedSender<Sent>,
    places: Arc<Semaphore>,
}

/// The receiving side of an actor's channel.
pub(super) struct Inbox(mpsc::UnboundedReceiver<Sent>);

/// The actor is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Outbox {
    /// Both sides of a channel.
    pub(super) fn new() -> (Self, Inbox) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(INBOX_MESSAGES));
        (Self { sender, places }, Inbox(inbox))
    }

    /// Sends, and waits while the channel is full.
    ///
    /// # Cancel safety
    /// Dropped, the message was either sent or is gone.
    pub(super) async fn send(&self, message: Message) -> Result<(), Gone> {
        // Places come back with the messages of an actor that is gone, so this ends in any case.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = Some(place.map_err(|_| Gone)?);
        self.put(message, place)
    }

    /// Sends from where nothing can wait, as from a destructor. It needs no place: at most one such message exists for
    /// each clone, each checkout and each change of the pool.
    pub(super) fn post(&self, event: Event) {
        self.post_message(Message::Happened(event));
    }

    /// The same, for what is no event of the core's.
    pub(super) fn post_message(&self, message: Message) {
        // Without an actor there is no pool that this could be about.
        let _ = self.put(message, None);
    }

    fn put(&self, message: Message, place: Option<OwnedSemaphorePermit>) -> Result<(), Gone> {
        let sent = Sent {
            message,
            _place: place,
        };
        self.sender.send(sent).map_err(|_| Gone)
    }
}

impl Inbox {
    /// The next message; `None` when no sender is left.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn recv(&mut self) -> Option<Message> {
        self.0.recv().await.map(|sent| sent.message)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn ended(clone: u64) -> Event {
        let clone = CloneKey(clone);
        Event::Ended { clone }
    }

    fn next(inbox: &mut Inbox) -> Option<Event> {
        match inbox.recv().now_or_never()?? {
            Message::Happened(event) => Some(event),
            _ => None,
        }
    }

    #[test]
    fn what_is_posted_to_a_full_channel_arrives_in_order() {
        let (outbox, mut inbox) = Outbox::new();
        let send = |nth| outbox.send(Message::Happened(ended(nth))).now_or_never();
        let full = INBOX_MESSAGES as u64;
        for nth in 0..full {
            assert!(matches!(send(nth), Some(Ok(()))));
        }
        assert!(send(full).is_none(), "one that can wait does");
        for nth in full..full + 100 {
            outbox.post(ended(nth));
        }
        for nth in 0..full + 100 {
            assert_eq!(next(&mut inbox), Some(ended(nth)));
        }
        assert!(matches!(send(0), Some(Ok(()))), "there is room again");
    }

    #[test]
    fn senders_that_wait_for_an_actor_that_goes_are_told() {
        let (outbox, inbox) = Outbox::new();
        for nth in 0..INBOX_MESSAGES as u64 {
            outbox.post(ended(nth));
            let sent = outbox.send(Message::Happened(ended(nth))).now_or_never();
            assert!(matches!(sent, Some(Ok(()))));
        }
        let mut waiting = Box::pin(outbox.send(Message::Happened(ended(0))));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(inbox);
        assert!(matches!(waiting.now_or_never(), Some(Err(Gone))));
    }
}
