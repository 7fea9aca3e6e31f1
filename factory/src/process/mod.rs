//! Processes: the only module that spawns or signals one.
//!
//! What always holds:
//! - A process has its own session: a signal to the service's terminal or group never reaches it, and it does not
//!   end because the service does.
//! - A child is signalled by pid only while it has not been waited for: until then nobody else can have the number.
//!   Anything else is signalled through a pidfd, after its start time was compared (`stray.rs`).
//! - Its error stream is read to the end, and the last lines are kept for the message when it fails.

mod child;
mod detached;
mod memory;
mod owned;
mod priority;
mod stderr;
mod stray;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use child::{Child, ExitKind, LaunchPlan};
pub(crate) use detached::Detached;
pub(crate) use memory::anonymous_bytes;
pub(crate) use owned::OwnedProcess;
pub(crate) use stray::{ProcessStamp, Stray, boot_id, end_stray, program_of};
pub(crate) use watch::ExitWatch;
