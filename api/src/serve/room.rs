//! Who may have how many connections of a listener.
//!
//! Any user of the host can connect over TCP, and hold connections that it does not use. So users other than root and the
//! service's own have a part of them, and each of them a part of that: root and the service's user always get one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::Uid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Parts of all connections: what all other users may have together, and what one of them may have.
const OTHERS_QUARTERS: usize = 3;
const ONE_QUARTERS: usize = 1;

/// The connections of a listener that users other than root and the service's own may have.
pub(super) struct OthersRoom {
    own: Uid,
    all: Arc<Semaphore>,
    one_max: usize,
    /// How many each of them has, by uid.
    held: Arc<Mutex<HashMap<u32, usize>>>,
}

/// A part of it, of one connection.
#[derive(Debug)]
pub(super) struct Place {
    uid: u32,
    held: Arc<Mutex<HashMap<u32, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl OthersRoom {
    /// The room of others among so many connections.
    pub(super) fn among(connections: usize) -> Self {
        let part = |quarters: usize| (connections * quarters / 4).max(1);
        Self {
            own: Uid::effective(),
            all: Arc::new(Semaphore::new(part(OTHERS_QUARTERS))),
            one_max: part(ONE_QUARTERS),
            held: Arc::default(),
        }
    }

    /// Whether a user's next connection is served, and its place where it needs one.
    pub(super) fn enter(&self, uid: u32) -> Option<Option<Place>> {
        let user = Uid::from_raw(uid);
        if user.is_root() || user == self.own {
            return Some(None);
        }
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&uid).copied().unwrap_or_default();
        if count >= self.one_max {
            return None;
        }
        held.insert(uid, count + 1);
        Some(Some(Place {
            uid,
            held: Arc::clone(&self.held),
            _permit: permit,
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_leave_connections_to_each_other_and_to_root() {
        let room = OthersRoom::among(8);
        let own = Uid::effective().as_raw();
        let (alice, bob) = (4001, 4002);
        let mut held: Vec<_> = (0..2).map(|_| room.enter(alice)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(room.enter(alice).is_none(), "a quarter is one user's most");
        held.extend((0..2).map(|_| room.enter(bob)));
        held.extend((0..2).map(|_| room.enter(4003)));
        assert!(held.iter().all(Option::is_some));
        assert!(room.enter(4004).is_none(), "three quarters are taken");
        for uid in [0, own] {
            assert!(room.enter(uid).is_some_and(|place| place.is_none()));
        }
        held.clear();
        assert!(room.held.lock().expect("not poisoned").is_empty());
        assert!(room.enter(alice).is_some());
    }
}
