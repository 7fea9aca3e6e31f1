//! The users that hypervisors run as: one for clones, another for the machines of builds.
//!
//! A build's hypervisor writes what all clones are made of. With a user of its own, a clone that was broken out of can
//! neither open its files nor reach its process, where the kernel has no Landlock either.

use std::ffi::CString;

use nix::unistd::{Uid, User, getgrouplist};

use crate::HostSettings;
use crate::sys::Credentials;

/// Why the hypervisor's user cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// There is no such user.
    #[error(
        "there is no user {name:?}, and as root QEMU must run as one (host.{key}): \
         useradd --system --no-create-home --shell /usr/sbin/nologin {name} (scripts/install does it)"
    )]
    Missing {
        /// The key that names it.
        key: &'static str,
        /// The configured name.
        name: String,
    },
    /// It is root.
    #[error(
        "host.{key} is {name:?}, which is root: QEMU never runs as root; name a user without rights"
    )]
    Root {
        /// The key that names it.
        key: &'static str,
        /// The configured name.
        name: String,
    },
    /// Clones and builds would have the same one.
    #[error(
        "host.build_user is {name:?}, which is host.qemu_user, too: a clone that was broken out of could write to a template \
         that is being built; name another user without rights"
    )]
    Shared {
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

/// The users that hypervisors run as.
#[derive(Clone, Debug)]
pub(crate) struct HypervisorUsers {
    /// Of clones.
    pub(crate) clones: Credentials,
    /// Of machines that become templates, or show that an accelerator works.
    pub(crate) builds: Credentials,
}

/// The configured users for root; a plain user's hypervisors run as that user.
pub(super) fn users(settings: &HostSettings) -> Result<Option<HypervisorUsers>, UserError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let clones = credentials("qemu_user", settings.qemu_user.as_deref())?;
    let builds = credentials("build_user", settings.build_user.as_deref())?;
    if clones.uid == builds.uid {
        let name = settings.build_user.clone().unwrap_or_default();
        return Err(UserError::Shared { name });
    }
    Ok(Some(HypervisorUsers { clones, builds }))
}

fn credentials(key: &'static str, name: Option<&str>) -> Result<Credentials, UserError> {
    let name = name.unwrap_or_default().to_owned();
    let look_up = |source| UserError::LookUp {
        name: name.clone(),
        source,
    };
    let Some(user) = User::from_name(&name).map_err(look_up)? else {
        return Err(UserError::Missing { key, name });
    };
    if user.uid.is_root() {
        return Err(UserError::Root { key, name });
    }
    let c_name = CString::new(name.clone()).map_err(|_| UserError::Missing {
        key,
        name: name.clone(),
    })?;
    // Supplementary groups: that is how a user gets at /dev/kvm.
    let groups = getgrouplist(&c_name, user.gid).map_err(look_up)?;
    Ok(Credentials {
        uid: user.uid,
        gid: user.gid,
        groups,
    })
}

/// The users of clones' hypervisors and of builds': the service's own, unless that is root.
pub(super) fn hypervisor_uids(users: Option<&HypervisorUsers>) -> [u32; 2] {
    let own = Uid::effective();
    let uids = users.map_or([own; 2], |users| [users.clones.uid, users.builds.uid]);
    uids.map(Uid::as_raw)
}
