//! The QEMU driver.
//!
//! ```text
//!  probe.rs    what this QEMU is and can do; refusals
//!  confine.rs  what a QEMU may open, and what keeps it from the rest of the host
//!  argv.rs     a launch order as a command line (pure)
//!  driver.rs   a launch order as a machine
//!  monitor.rs  QMP: the only place that speaks it
//!  ports.rs    what QMP says of the guest's ports
//!  plug.rs     CPUs and memory that are plugged in
//!  devices.rs  disks and network interfaces that are plugged in
//!  stub.rs     the part of a kernel that a clone has to be given
//! ```

mod argv;
#[cfg(test)]
mod argv_tests;
mod confine;
mod devices;
#[cfg(test)]
mod devices_tests;
mod driver;
mod monitor;
#[cfg(test)]
mod monitor_tests;
mod plug;
#[cfg(test)]
mod plug_tests;
mod ports;
mod probe;
mod stub;

pub(crate) use argv::DEVICES;
pub(crate) use driver::Qemu;
pub use probe::ProbeError;
use probe::look_up;
pub(crate) use probe::probe;
pub(crate) use stub::kernel_stub;
