//! Devices that a clone gets when it is handed out: network interfaces and disks.
//!
//! ```text
//!  spec.rs    what is asked for, and what a clone has then
//!  caller.rs  whose rights are used
//!  open.rs    descriptors of what is asked for, opened with those rights
//!    disk.rs  tap.rs  qcow2.rs
//!  attach.rs  into a machine: plugged, and seen by its guest
//! ```
//! What always holds:
//!
//! - A path or the name of a tap is looked up once, with the rights of whoever asks for it. From then on there are
//!   descriptors only: the hypervisor is given those, and never a path.
//! - Everything is open before a clone is taken, so that a request that cannot be served costs none.
//! - A device belongs to its machine until the machine's process is gone; nothing is unplugged before.
//!
//! Dropped, what was opened is closed again. A machine that was given part of it is fit for nobody else: end it.

mod attach;
mod caller;
mod disk;
mod open;
mod qcow2;
mod spec;
mod tap;

pub use attach::AttachError;
pub(crate) use attach::attach;
pub use caller::Caller;
pub use open::{DeviceError, DiskKey, OpenDevices, OpenDisk, OpenNic, open_devices};
pub use spec::{
    Attached, AttachedDisk, AttachedNic, DeviceSpecs, DiskFormat, DiskSpec, MAX_DEVICES, Mac,
    MacError, NicSpec,
};
