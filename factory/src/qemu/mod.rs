//! The QEMU driver.
//!
//! ```text
//!  probe.rs    what this QEMU is and can do; refusals
//!  argv.rs     a launch order as a command line (pure)
//!  driver.rs   a launch order as a machine
//!  monitor.rs  QMP: the only place that speaks it
//!  stub.rs     the part of a kernel that a clone has to be given
//! ```

mod argv;
#[cfg(test)]
mod argv_tests;
mod driver;
mod monitor;
#[cfg(test)]
mod monitor_tests;
mod probe;
mod stub;

pub(crate) use driver::Qemu;
pub use probe::ProbeError;
pub(crate) use probe::probe;
pub(crate) use stub::kernel_stub;
