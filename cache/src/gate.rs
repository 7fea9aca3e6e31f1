//! The node's bound on launches: so many at the same time, those that somebody waits for first.
//!
//! A clone is made by the processor. More of them at once than there are cores only makes each of them slower.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::sync::lock;

/// Lets so many through at the same time. Cheap to clone; all clones are the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

struct State {
    free: usize,
    urgent: VecDeque<oneshot::Sender<Pass>>,
    others: VecDeque<oneshot::Sender<Pass>>,
}

/// The right to be through. Dropped, it lets the next one in.
pub(crate) struct Pass(Option<Gate>);

impl Gate {
    /// A gate for so many; for one at least.
    pub(crate) fn new(places: usize) -> Self {
        let (urgent, others) = (VecDeque::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(State {
            free: places.max(1),
            urgent,
            others,
        })))
    }

    /// Waits for a place: first come, first served, but the urgent before all others.
    ///
    /// The wait has no deadline of its own: each pass belongs to a launch that has one.
    ///
    /// # Cancel safety
    /// Dropped, it gives its turn to the next.
    pub(crate) async fn enter(&self, urgent: bool) -> Pass {
        let turn = {
            let mut state = lock(&self.0);
            if state.free > 0 {
                state.free -= 1;
                return Pass(Some(self.clone()));
            }
            let (sender, receiver) = oneshot::channel();
            if urgent {
                state.urgent.push_back(sender)
            } else {
                state.others.push_back(sender)
            }
            receiver
        };
        turn.await.expect("a sender leaves the queue only to send")
    }

    fn next(&self) -> Option<oneshot::Sender<Pass>> {
        let mut state = lock(&self.0);
        let next = state
            .urgent
            .pop_front()
            .or_else(|| state.others.pop_front());
        state.free += usize::from(next.is_none());
        next
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(gate) = self.0.take() else {
            return;
        };
        // A launch that no longer waits leaves its place in the queue: the pass comes back, and goes to the one behind it.
        while let Some(next) = gate.next() {
            match next.send(Self(Some(gate.clone()))) {
                Ok(()) => return,
                Err(mut refused) => refused.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn so_many_are_let_through_and_the_urgent_first() {
        let gate = Gate::new(1);
        let first = gate.enter(false).now_or_never().expect("it is free");
        let mut other = Box::pin(gate.enter(false));
        let mut urgent = Box::pin(gate.enter(true));
        assert!(
            other.as_mut().now_or_never().is_none() && urgent.as_mut().now_or_never().is_none()
        );
        drop(first);
        assert!(other.as_mut().now_or_never().is_none());
        drop(urgent.now_or_never().expect("its turn comes first"));
        drop(other.now_or_never().expect("then that of the other"));
    }

    #[test]
    fn any_number_may_stop_waiting() {
        // Far more than there is stack for, if one call were made inside another for each.
        const GONE: usize = 1_000_000;
        let gate = Gate::new(1);
        let first = gate.enter(true).now_or_never().expect("it is free");
        for _ in 0..GONE {
            assert!(gate.enter(true).now_or_never().is_none());
        }
        let mut last = Box::pin(gate.enter(false));
        assert!(last.as_mut().now_or_never().is_none());
        drop(first);
        assert!(last.now_or_never().is_some(), "its turn has come");
    }

    #[test]
    fn one_who_stops_waiting_does_not_keep_the_place() {
        let gate = Gate::new(1);
        let first = gate.enter(true).now_or_never().expect("it is free");
        let mut before = Box::pin(gate.enter(true));
        let mut after = Box::pin(gate.enter(true));
        assert!(
            before.as_mut().now_or_never().is_none() && after.as_mut().now_or_never().is_none()
        );
        drop(first);
        drop(before);
        assert!(
            after.now_or_never().is_some(),
            "the pass that was sent in vain went on"
        );
        assert!(gate.enter(false).now_or_never().is_some());
    }
}
