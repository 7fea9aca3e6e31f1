//! Devices of sandboxes: who has which disk, tap and address.
//!
//! ```text
//!  ledger.rs  who has what, and who may have it too (pure)
//!  book.rs    the node's ledger, and the machines that what is claimed went into
//!  held.rs    what one checkout holds: open descriptors, and the right to them
//!  error.rs   why it gets nothing
//! ```
//! What always holds: what is written to has one user. A claim is given up when its checkout is over *and* the process
//! of every machine that it went into is gone, and not before: a machine that is being ended may still be writing.

mod book;
mod error;
mod held;
mod ledger;

pub(crate) use book::Book;
pub use error::DevicesError;
pub(crate) use held::{Held, restore};
pub use ledger::Conflict;
