//! The user that the hypervisor runs as.

use std::ffi::CString;

use nix::unistd::{Uid, User, getgrouplist};

use crate::sys::Credentials;

/// Why the hypervisor's user cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// There is no such user.
    #[error(
        "there is no user {name:?}, and as root QEMU must run as one (host.qemu_user): \
         useradd --system --no-create-home --shell /usr/sbin/nologin {name} (scripts/quickstart does it)"
    )]
    Missing {
        /// The configured name.
        name: String,
    },
    /// It is root.
    #[error(
        "host.qemu_user is {name:?}, which is root: QEMU never runs as root; name a user without rights"
    )]
    Root {
        /// The configured name.
        name: String,
    },
    /// It cannot be looked up.
    #[error("the user {name:?} cannot be looked up: {source}")]
    LookUp {
        /// The configured name.
        name: String,
        /// Why not.
        source: nix::Error,
    },
}

/// Whom the hypervisor becomes: nobody else for a plain user, the configured user for root.
pub(super) fn credentials(qemu_user: Option<&str>) -> Result<Option<Credentials>, UserError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let name = qemu_user.unwrap_or_default().to_owned();
    let look_up = |source| UserError::LookUp {
        name: name.clone(),
        source,
    };
    let Some(user) = User::from_name(&name).map_err(look_up)? else {
        return Err(UserError::Missing { name });
    };
    if user.uid.is_root() {
        return Err(UserError::Root { name });
    }
    let c_name =
        CString::new(name.clone()).map_err(|_| UserError::Missing { name: name.clone() })?;
    // Supplementary groups: that is how a user gets at /dev/kvm.
    let groups = getgrouplist(&c_name, user.gid).map_err(look_up)?;
    Ok(Some(Credentials {
        uid: user.uid,
        gid: user.gid,
        groups,
    }))
}
