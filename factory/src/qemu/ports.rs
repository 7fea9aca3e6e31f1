//! Whether the guest's end of a port is open, from what QEMU reports.
//!
//! QEMU reports at most one change a second of each port, and of those that it held back the last one alone. So an
//! agent that is started again quickly may be seen as an `open` after an `open`: that is a loss too.

use std::sync::Mutex;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::sync::lock;

/// Counts how often the guest has closed one port.
pub(super) struct PortWatch {
    id: &'static str,
    /// What was reported last; nothing before the first report.
    is_open: Mutex<Option<bool>>,
    losses: watch::Sender<u64>,
}

/// The data of `VSERPORT_CHANGE`.
#[derive(Deserialize)]
struct Change {
    id: String,
    open: bool,
}

impl PortWatch {
    pub(super) fn new(id: &'static str) -> (Self, watch::Receiver<u64>) {
        let (losses, seen) = watch::channel(0);
        let is_open = Mutex::new(None);
        (
            Self {
                id,
                is_open,
                losses,
            },
            seen,
        )
    }

    /// Takes a report. One that is not understood says nothing of this port.
    pub(super) fn on_change(&self, data: &Value) {
        let Ok(change) = Change::deserialize(data) else {
            return;
        };
        if change.id != self.id {
            return;
        }
        let was_open = lock(&self.is_open).replace(change.open);
        let is_lost = match (was_open, change.open) {
            (None | Some(true), false) | (Some(true), true) => true,
            (None | Some(false), true) | (Some(false), false) => false,
        };
        if is_lost {
            tracing::debug!(port = self.id, "the guest has closed a port");
            self.losses.send_modify(|losses| *losses += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn losses_are_counted_and_other_ports_are_not() {
        let (port, losses) = PortWatch::new("agent");
        let says = |id: &str, open: bool| port.on_change(&json!({"id": id, "open": open}));
        says("agent", true);
        says("stream", false);
        port.on_change(&json!({"unknown": 1}));
        assert_eq!(*losses.borrow(), 0, "a guest that begins has lost nothing");
        says("agent", false);
        says("agent", false);
        says("agent", true);
        assert_eq!(*losses.borrow(), 1);
        // Closed and opened within a second: the first half was held back.
        says("agent", true);
        assert_eq!(*losses.borrow(), 2);
    }
}
