//! Who gets how much of the host's memory: one count for the whole node, and nothing is begun that would exceed it.
//!
//! ```text
//!  count.rs       the arithmetic: what is held, and whether more fits      budget.rs   how much there is
//!  ledger.rs      ... shared, with a guard for everything that is held     sum.rs      a sum that does not fit, in words
//!  generation.rs  a generation that holds the memory of its file           measure.rs  what clones take, again and again
//! ```
//!
//! What is counted:
//! - **The memory file of each generation, once and in full**: from before its build begins until its last holder is gone,
//!   and while it is kept on disk to go back to. However many clones map it, it is there once; and its pages are in memory
//!   from the start.
//! - **What a build takes beside it**: the machine that boots the template, and the canaries.
//! - **The private pages of each clone**, `Anonymous` as measured, from before it is launched until its process is gone.
//!   As long as it was not measured, what the unused clones of its template came to at the most.
//! - **What was plugged into a clone, in full**: it is private memory that its guest may fill at any time.
//!
//! What always holds: whatever was *admitted* did fit at that moment, by what was known then. Guests that write to their
//! memory can make the sum larger than the budget by themselves; nothing new is admitted then until it has fallen, and
//! the log says when it began and when it was over. A sandbox is never ended for that.
//!
//! What is only kept on disk to go back to gives way: it is dropped before anything is refused for want of memory (`kept.rs`).
//!
//! A generation on disk that is damaged is not counted: nothing is known of it but its name, and the build that replaces it
//! removes it.

mod budget;
mod count;
mod generation;
mod ledger;
mod measure;
mod sum;
mod tally;

pub use budget::MemoryBudget;
pub(crate) use ledger::{Admission, ClonePermit};
pub use sum::NoRoom;
