//! A connection's seat: one of a bounded number, and how patient the service is with it.
//!
//! A connection that became a WebSocket outlives the task that served it: it takes its seat along, so that the bound
//! holds for it too.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cheap to clone; the room is free again when the last clone is gone. Requests carry it as an extension.
#[derive(Clone, Debug)]
pub struct Seat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waits: AtomicBool,
    _room: Box<dyn Any + Send + Sync>,
}

impl Seat {
    /// A seat in a room: whatever stands for it is dropped with the last clone.
    #[must_use]
    pub fn new(room: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            waits: AtomicBool::new(false),
            _room: Box::new(room),
        }))
    }

    /// From now on the client may take what it is sent as slowly as it likes: somebody reads a terminal.
    pub(crate) fn wait_for_client(&self) {
        self.0.waits.store(true, Ordering::Relaxed);
    }

    /// Whether a client that takes nothing is waited for.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.0.waits.load(Ordering::Relaxed)
    }
}
