//! What keeps a machine's hypervisor from the rest of the host.

use serde::{Deserialize, Serialize};

/// One of the things that confine a hypervisor's process, and whether it does here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// `landlock`, `seccomp`, `user` or `no_new_privs`.
    pub name: String,
    /// Whether it is in force.
    pub on: bool,
    /// What it forbids; where it is off, why.
    pub reason: String,
}

impl Confinement {
    pub(crate) fn new(name: &str, on: bool, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            on,
            reason: reason.into(),
        }
    }
}
