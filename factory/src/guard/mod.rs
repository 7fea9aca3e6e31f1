//! The lease guardian: a sandbox never outlives its lease by more than a few seconds, whether a service runs or not.
//!
//! A service starts one small process of its own program, in a session of its own. It does nothing while the service
//! lives:
//!
//! ```text
//!             the service is gone                      another guardian is there
//!  watching ---------------------> guarding ---------------------------------------> exit
//!  (a pidfd, no polling)            | once a second: records afresh, leases that
//!                                   | have run out end, and what was being released;
//!                                   v consoles of sandboxes stay within their limit
//!                                  exit: no leased sandbox is left
//! ```
//!
//! What always holds:
//! - It never takes a lock: a service that starts is never refused because of it. Whose service holds the lock it reads
//!   from the lock's file.
//! - It goes on until the guardian of a later service is there, not merely that service: between the two a lease may
//!   run out. While a service lives that has no guardian yet, it lets that one be first.
//! - Where it can read the record it ends nothing but the recorded process of a clone, through a pidfd, after number, start time, host boot, program
//!   and name were compared; and nothing whose record, read at that moment, gives it time.
//! - Directories stay: the next service, or `vmint clean`, sweeps them. So whoever looks into one is never surprised.
//! - A machine whose record cannot be read for ten seconds is ended while no service lives: nobody knows when its lease
//!   ends, and it is not one's for ever. It is known by its name and its user.
//! - A sandbox without an end is not ended, but its console is kept within its limit. A clone that nobody has and a
//!   machine that is being made are not its business.
//! - It holds one record at a time. Killed at any moment it leaves a file with its number, and nothing else.

mod run;
mod start;

pub use run::{GuardError, guard_leases};
pub use start::Guardian;

/// The guardian's file in the run directory: its number and start time, once it is at work.
pub(crate) const FILE: &str = "guard";
/// What it says.
pub(crate) const LOG: &str = "guard.log";
