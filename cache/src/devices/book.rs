//! The node's ledger, and the machines that what is claimed went into.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::ledger::{Claim, Conflict, Ledger, Owner};
use crate::mint::LiveClone;
use crate::node::Node;
use crate::sync::lock;

/// The devices of all sandboxes of a node.
#[derive(Default)]
pub(crate) struct Book(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    ledger: Ledger,
    owners: BTreeMap<Owner, Holding>,
    next: u64,
}

/// Who may still use what is claimed.
struct Holding {
    /// The checkout is not over.
    is_open: bool,
    /// Machines that it went into, and whose end was not heard of yet.
    machines: Vec<Arc<dyn LiveClone>>,
}

impl Holding {
    fn is_over(&self) -> bool {
        !self.is_open && self.machines.iter().all(|vm| vm.has_exited())
    }
}

impl Book {
    /// Enters claims; they last as long as the answer, and as the machines that they go into.
    pub(super) fn claim(self: &Arc<Self>, claims: Vec<Claim>) -> Result<Claimed, Conflict> {
        let mut pages = lock(&self.0);
        // A process that is gone uses nothing, whether its end was heard of or not: a client that released a sandbox may
        // use its disk at once. Only the owners that are in the way are asked.
        for owner in pages.ledger.in_the_way(&claims) {
            pages.forget_if_over(owner);
        }
        let owner = Owner(pages.next);
        pages.next += 1;
        pages.ledger.claim(owner, claims)?;
        let holding = Holding {
            is_open: true,
            machines: Vec::new(),
        };
        pages.owners.insert(owner, holding);
        Ok(Claimed {
            owner,
            book: Arc::clone(self),
        })
    }

    fn left(&self, owner: Owner, vm: &Arc<dyn LiveClone>) {
        let mut pages = lock(&self.0);
        if let Some(holding) = pages.owners.get_mut(&owner) {
            holding.machines.retain(|other| !Arc::ptr_eq(other, vm));
        }
        pages.forget_if_over(owner);
    }
}

impl Pages {
    fn forget_if_over(&mut self, owner: Owner) {
        if self.owners.get(&owner).is_none_or(Holding::is_over) {
            self.owners.remove(&owner);
            self.ledger.release(owner);
        }
    }
}

/// What a checkout has claimed. Dropped, the machines that it went into still have it, while they live.
pub(super) struct Claimed {
    owner: Owner,
    book: Arc<Book>,
}

impl Claimed {
    /// It goes into a machine, which has it from now on until its process is gone.
    pub(super) fn goes_into(&self, vm: &Arc<dyn LiveClone>, node: &Node) {
        if let Some(holding) = lock(&self.book.0).owners.get_mut(&self.owner) {
            holding.machines.push(Arc::clone(vm));
        }
        let (owner, book, vm) = (self.owner, Arc::clone(&self.book), Arc::clone(vm));
        node.spawn(async move {
            vm.ended().await;
            book.left(owner, &vm);
        });
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut pages = lock(&self.book.0);
        if let Some(holding) = pages.owners.get_mut(&self.owner) {
            holding.is_open = false;
        }
        pages.forget_if_over(self.owner);
    }
}
