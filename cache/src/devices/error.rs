//! Why a sandbox does not get the devices that are asked for.

use thiserror::Error;
use vmint_factory::{AttachError, DeviceError};

use super::Conflict;

/// Why a sandbox does not get the devices that are asked for. All of it is the request's to mend.
#[derive(Debug, Error)]
pub enum DevicesError {
    /// One of them cannot be had.
    #[error(transparent)]
    Open(#[from] DeviceError),
    /// Somebody has one of them.
    #[error(transparent)]
    InUse(#[from] Conflict),
    /// The template's machine takes none.
    #[error(
        "nics and disks are not possible: the template {template:?} is a {machine}, into which nothing can be plugged; q35 can"
    )]
    NoHotplug {
        /// The template.
        template: String,
        /// Its machine type.
        machine: &'static str,
    },
    /// The hypervisor or the agent says that it cannot be done: another clone would say the same.
    #[error(transparent)]
    Refused(AttachError),
}

impl DevicesError {
    /// The stable code that metrics and HTTP use.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse(_) => "conflict",
            Self::Open(_) | Self::NoHotplug { .. } | Self::Refused(_) => "not_possible",
        }
    }
}
