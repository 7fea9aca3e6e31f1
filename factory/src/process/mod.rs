//! Processes: the only module that spawns or signals one.
//!
//! What always holds:
//! - A process has its own session: a signal to the service's terminal or group never reaches it, and it does not
//!   end because the service does.
//! - A child is signalled by pid only while it has not been waited for: until then nobody else can have the number.
//!   Anything else is signalled through a pidfd, after its start time was compared (`stray.rs`).
//! - It has nothing of the service's environment but `PATH`, and goes before the service when the host's memory is short
//!   (`oom.rs`). A hypervisor has a Landlock domain of its own (`domain.rs`).
//! - A hypervisor is listed for as long as it lives: what it asks of the service is not its user's (`hypervisors.rs`).
//! - Its error stream is read to the end, and the last lines are kept for the message when it fails.

mod child;
mod detached;
mod domain;
#[cfg(test)]
mod escape_tests;
mod hypervisors;
mod memory;
mod oom;
mod owned;
mod priority;
mod stderr;
mod stray;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use child::{Child, ExitKind, LaunchPlan};
pub(crate) use detached::Detached;
pub(crate) use domain::{Domain, Landlock, Tcp};
pub use hypervisors::Hypervisors;
pub(crate) use memory::{anonymous_bytes, mapped_files};
pub(crate) use owned::OwnedProcess;
pub(crate) use stray::{ProcessStamp, Stray, boot_id, end_stray, program_of};
pub(crate) use watch::ExitWatch;
pub use watch::ProcessState;

/// The environment of a process of ours: where programs are, and nothing of what the service was given, which may have
/// secrets in it.
fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    const PATH: &str = "PATH";
    std::env::var_os(PATH).map(|folders| (PATH, folders))
}
