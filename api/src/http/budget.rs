//! One budget of memory for the bodies of all requests.
//!
//! A body takes its share as it arrives, and keeps it for as long as its request is worked on: what was parsed from it is
//! about as large as it was. A body that finds the budget used is refused, and no other request is hurt by it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::code::Code;
use super::limits::{BODIES_MAX_BYTES, BODY_FREE_BYTES, OVERLOAD_WAIT};
use super::problem::Problem;

/// The budget. Cheap to clone.
#[derive(Clone)]
pub(super) struct BodyBudget {
    bytes: Arc<Semaphore>,
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self::new(BODIES_MAX_BYTES)
    }
}

impl BodyBudget {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(max_bytes)),
        }
    }

    /// The share of a body of which nothing has arrived yet.
    pub(super) fn share(&self) -> BodyShare {
        BodyShare {
            bytes: Arc::clone(&self.bytes),
            free_bytes: BODY_FREE_BYTES,
            held: None,
        }
    }
}

/// What one body has of the budget; it goes back when this is dropped.
pub(super) struct BodyShare {
    bytes: Arc<Semaphore>,
    /// What the body may still take beside the budget.
    free_bytes: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl BodyShare {
    /// Takes the share of a piece that has arrived.
    ///
    /// # Errors
    /// 503 `overloaded` when the budget is used.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let free = bytes.min(self.free_bytes);
        self.free_bytes -= free;
        let counted = bytes - free;
        if counted == 0 {
            return Ok(());
        }
        let taken = u32::try_from(counted)
            .ok()
            .and_then(|counted| Arc::clone(&self.bytes).try_acquire_many_owned(counted).ok());
        let Some(taken) = taken else {
            return Err(Problem::new(
                Code::Overloaded,
                format!(
                    "the bodies of the requests under way fill the {} MiB that they may have together",
                    BODIES_MAX_BYTES >> 20
                ),
            )
            .retry_after(OVERLOAD_WAIT));
        };
        match &mut self.held {
            Some(held) => held.merge(taken),
            None => self.held = Some(taken),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_taken_piece_by_piece_and_given_back() {
        let budget = BodyBudget::new(100);
        let mut first = budget.share();
        assert!(first.grow(BODY_FREE_BYTES).is_ok());
        assert!(first.grow(60).is_ok() && first.grow(40).is_ok());
        let mut second = budget.share();
        assert!(
            second.grow(BODY_FREE_BYTES).is_ok(),
            "a small body always has room"
        );
        let refused = second.grow(1).expect_err("the budget is used");
        assert_eq!(refused.code(), Code::Overloaded);
        drop(first);
        assert!(second.grow(100).is_ok());
    }
}
