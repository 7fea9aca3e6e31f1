//! One budget of memory for the bodies of all requests.
//!
//! A body takes its share as it arrives, and keeps it for as long as what was parsed from it is held: that is about as large
//! as it was. A body that finds the budget used is refused, and no other request is hurt by it.
//!
//! ```text
//!   |------------- all bodies: BODIES_MAX_BYTES -------------|
//!   |-- members of the group: three quarters --|             |    the rest is for root and the service's user alone
//!   |-- one of them: half --|
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::code::Code;
use super::limits::{BODIES_MAX_BYTES, BODY_FREE_BYTES, OVERLOAD_WAIT};
use super::problem::Problem;
use super::users::{Role, User};

/// The budget. Cheap to clone.
#[derive(Clone)]
pub(super) struct BodyBudget(Arc<Inner>);

struct Inner {
    max_bytes: usize,
    all: Arc<Semaphore>,
    /// What those who do not operate the service may have together.
    members: Arc<Semaphore>,
    /// What each of them has of it, by uid.
    of_member: Mutex<HashMap<u32, usize>>,
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self::new(BODIES_MAX_BYTES)
    }
}

impl BodyBudget {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Inner {
            max_bytes,
            all: Arc::new(Semaphore::new(max_bytes)),
            members: Arc::new(Semaphore::new(max_bytes / 4 * 3)),
            of_member: Mutex::default(),
        }))
    }

    /// The share of a user's body, of which nothing has arrived yet.
    pub(super) fn share(&self, user: User) -> BodyShare {
        BodyShare {
            budget: Arc::clone(&self.0),
            free_bytes: BODY_FREE_BYTES,
            all: None,
            members: None,
            member: (user.role < Role::Operator).then_some((user.uid, 0)),
        }
    }
}

/// What one body has of the budget; it goes back when this is dropped.
pub(super) struct BodyShare {
    budget: Arc<Inner>,
    /// What the body may still take beside the budget.
    free_bytes: usize,
    all: Option<OwnedSemaphorePermit>,
    members: Option<OwnedSemaphorePermit>,
    /// Whose it is, and how much of that user's bytes; `None` where no user's part is bounded.
    member: Option<(u32, usize)>,
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
        self.take(counted).map_err(|whose| {
            let max_mib = self.budget.max_bytes >> 20;
            let detail = format!(
                "the bodies of the requests under way, {max_mib} MiB at most, fill what {whose} may have of it"
            );
            Problem::new(Code::Overloaded, detail).retry_after(OVERLOAD_WAIT)
        })
    }

    /// Takes so much of the budget, or says whose part of it is used.
    fn take(&mut self, bytes: usize) -> Result<(), &'static str> {
        let Ok(permits) = u32::try_from(bytes) else {
            return Err("anyone");
        };
        let of = |part: &Arc<Semaphore>| Arc::clone(part).try_acquire_many_owned(permits).ok();
        let budget = &self.budget;
        let all = of(&budget.all).ok_or("anyone")?;
        if let Some((uid, held)) = &mut self.member {
            let members = of(&budget.members).ok_or("users who do not operate the service")?;
            let mut of_member = lock(&budget.of_member);
            let of_this = of_member.get(uid).copied().unwrap_or_default() + bytes;
            if of_this > budget.max_bytes / 2 {
                return Err("one user");
            }
            of_member.insert(*uid, of_this);
            *held += bytes;
            merge(&mut self.members, members);
        }
        merge(&mut self.all, all);
        Ok(())
    }
}

fn merge(held: &mut Option<OwnedSemaphorePermit>, taken: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(taken),
        None => *held = Some(taken),
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        let Some((uid, held)) = self.member.filter(|(_, held)| *held > 0) else {
            return;
        };
        let mut of_member = lock(&self.budget.of_member);
        if let Some(of_this) = of_member.get_mut(&uid) {
            *of_this = of_this.saturating_sub(held);
            if *of_this == 0 {
                of_member.remove(&uid);
            }
        }
    }
}

/// A change is an addition: it cannot leave the numbers half changed.
fn lock(of_member: &Mutex<HashMap<u32, usize>>) -> MutexGuard<'_, HashMap<u32, usize>> {
    of_member.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, role: Role) -> User {
        User { uid, role }
    }

    /// Takes so much for a body of a user; holds it.
    fn taken(budget: &BodyBudget, user: User, bytes: usize) -> Option<BodyShare> {
        let mut share = budget.share(user);
        share.grow(BODY_FREE_BYTES + bytes).ok().map(|()| share)
    }

    #[test]
    fn members_leave_a_part_to_each_other_and_to_those_who_operate_the_service() {
        let budget = BodyBudget::new(100);
        let (alice, bob) = (user(1, Role::Member), user(2, Role::Member));
        let half = taken(&budget, alice, 50);
        assert!(half.is_some() && taken(&budget, alice, 1).is_none());
        let rest = taken(&budget, bob, 25);
        assert!(rest.is_some() && taken(&budget, bob, 1).is_none());
        let root = taken(&budget, user(0, Role::Root), 25);
        assert!(root.is_some() && taken(&budget, user(3, Role::Operator), 1).is_none());
        drop((half, root));
        assert!(
            lock(&budget.0.of_member).keys().eq([&2]),
            "nothing is left of others"
        );
        assert!(taken(&budget, alice, 50).is_some());
        assert!(taken(&budget, user(0, Role::Root), 75).is_some());
    }

    #[test]
    fn a_share_is_taken_piece_by_piece_and_given_back() {
        let budget = BodyBudget::new(100);
        let root = user(0, Role::Root);
        let mut first = budget.share(root);
        assert!(first.grow(BODY_FREE_BYTES).is_ok());
        assert!(first.grow(60).is_ok() && first.grow(40).is_ok());
        let mut second = budget.share(root);
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
