//! One stream.

use bytes::Bytes;

use super::actor::Link;
use super::mux::Incoming;
use super::slot::{Slot, Waiters};
use crate::guest::WindowSize;
use crate::wire::LinkError;

/// A stream that is open. Dropped, it is cancelled in the guest.
#[derive(Debug)]
pub(in crate::guest) struct Stream {
    link: Link,
    id: u16,
    waiters: Waiters,
}

impl Stream {
    pub(super) fn new(link: Link, id: u16, waiters: Waiters) -> Self {
        Self { link, id, waiters }
    }

    /// The next thing that comes. After a result, or the loss of the connection, there is nothing to ask for.
    ///
    /// # Errors
    /// The connection is gone.
    ///
    /// # Cancel safety
    /// Safe: what was not taken stays. One caller at a time.
    pub(in crate::guest) async fn next(&self) -> Result<Incoming, LinkError> {
        loop {
            if let Some(taken) = self.link.shared.take(self.id) {
                return taken;
            }
            self.waiters.taker.notified().await;
        }
    }

    /// Hands bytes to the guest over, or gives them back while those before them have not been written.
    pub(in crate::guest) fn give(&self, bytes: Bytes) -> Result<(), Bytes> {
        self.link.shared.change(|mux| mux.give(self.id, bytes))
    }

    /// Waits until [`Self::give`] may take bytes again.
    ///
    /// # Cancel safety
    /// Safe. One caller at a time.
    pub(in crate::guest) async fn room(&self) {
        self.waiters.giver.notified().await;
    }

    /// Hands bytes to the guest over as soon as those before them have been written.
    ///
    /// # Cancel safety
    /// None: the bytes may be lost. One caller at a time.
    pub(in crate::guest) async fn send(&self, mut bytes: Bytes) {
        while let Err(back) = self.give(bytes) {
            bytes = back;
            self.room().await;
        }
    }

    /// Nothing more will be given.
    pub(in crate::guest) fn end(&self) {
        self.change(|slot| slot.end.want());
    }

    /// The terminal has another size.
    pub(in crate::guest) fn resize(&self, size: WindowSize) {
        // Only the last one counts.
        self.change(|slot| slot.resize = Some(size));
    }

    fn change(&self, change: impl FnOnce(&mut Slot)) {
        self.link.shared.change(|mux| mux.of(self.id, change));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.shared.abandon(self.id);
    }
}
