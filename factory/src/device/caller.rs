//! Whose rights are used to open what a request names.
//!
//! A service of root takes on the file system rights of whoever asks, in a thread of its own that ends with the work:
//! rights that were taken on are never given back, so no other work can run with them. Any other service has its own
//! rights only, and lends them to nobody: a caller who is somebody else is refused, except root, who has them anyway.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid};

use crate::sys::{self, Credentials};

/// Whoever is at the other end of a Unix socket.
#[derive(Clone, Debug)]
pub struct Caller {
    rights: Credentials,
    pid: i32,
}

/// Why work could not be done with a caller's rights.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// The service is no root's, and the caller is somebody else.
    #[error(
        "this service runs as uid {own} and cannot take on the rights of uid {caller}: \
         use a service of that user, or one of root"
    )]
    Foreign {
        /// The service's user.
        own: Uid,
        /// The caller.
        caller: Uid,
    },
    /// The kernel did not let it.
    #[error("the rights of uid {caller} cannot be taken on: {source}")]
    Refused {
        /// The caller.
        caller: Uid,
        /// Why not.
        source: io::Error,
    },
}

impl Caller {
    /// Who connected, with the groups that they had then.
    ///
    /// # Errors
    /// When the kernel does not tell: it is no connected Unix socket.
    pub fn of_peer(socket: &impl AsFd) -> io::Result<Self> {
        let peer = getsockopt(&socket.as_fd(), PeerCredentials)?;
        let rights = Credentials {
            uid: Uid::from_raw(peer.uid()),
            gid: Gid::from_raw(peer.gid()),
            groups: sys::peer_groups(socket.as_fd())?,
        };
        let pid = peer.pid();
        Ok(Self { rights, pid })
    }

    /// This process itself.
    ///
    /// # Errors
    /// When the kernel does not tell its groups.
    pub fn this_process() -> io::Result<Self> {
        let rights = Credentials {
            uid: Uid::effective(),
            gid: Gid::effective(),
            groups: nix::unistd::getgroups()?,
        };
        let pid = nix::unistd::getpid().as_raw();
        Ok(Self { rights, pid })
    }

    /// Their number.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.rights.uid.as_raw()
    }

    /// The number of their group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.rights.gid.as_raw()
    }

    /// The number of the process that connected; 0 where it is of another process namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn is_root(&self) -> bool {
        self.rights.uid.is_root()
    }

    /// Does something with the caller's rights on the file system. It blocks until that is done.
    pub(super) fn does<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, RightsError> {
        let (own, caller) = (Uid::effective(), self.rights.uid);
        if caller.is_root() || caller == own {
            // Root at both ends, or the same plain user. (A plain service that root asks has rights of its own only.)
            if !own.is_root() || caller.is_root() {
                return Ok(work());
            }
        } else if !own.is_root() {
            return Err(RightsError::Foreign { own, caller });
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let taken = sys::take_on_file_rights(&self.rights);
                taken.map_err(|source| RightsError::Refused { caller, source })?;
                Ok(work())
            });
            thread
                .join()
                .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
        })
    }

    #[cfg(test)]
    pub(super) fn test(uid: u32, groups: &[u32]) -> Self {
        let rights = Credentials {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            groups: groups.iter().copied().map(Gid::from_raw).collect(),
        };
        Self { rights, pid: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_peer_is_known_with_its_groups() -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        let (peer, own) = (Caller::of_peer(&ours)?, Caller::this_process()?);
        assert_eq!((peer.uid(), peer.gid()), (own.uid(), own.gid()));
        assert_eq!(peer.rights.groups, own.rights.groups);
        assert_eq!(peer.pid(), own.pid());
        drop(theirs);
        Ok(())
    }

    /// Whether a caller can read a file.
    fn reads(caller: &Caller, path: &std::path::Path) -> bool {
        matches!(caller.does(|| File::open(path)), Ok(Ok(_)))
    }

    #[test]
    fn a_caller_has_the_rights_of_its_user_and_groups_and_no_other() -> io::Result<()> {
        if !Uid::effective().is_root() {
            let refused = Caller::test(Uid::effective().as_raw() + 1, &[]).does(|| ());
            assert!(matches!(refused, Err(RightsError::Foreign { .. })));
            return Ok(());
        }
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let file = |name: &str, uid: u32, gid: u32, mode: u32| -> io::Result<_> {
            let path = folder.path().join(name);
            File::create(&path)?;
            chown(&path, Some(uid), Some(gid))?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
            Ok(path)
        };
        let of_root = file("of-root", 0, 0, 0o600)?;
        let of_user = file("of-user", 4001, 0, 0o400)?;
        let of_group = file("of-group", 0, 4002, 0o040)?;
        let (user, member) = (Caller::test(4001, &[]), Caller::test(4003, &[4002]));
        assert!(!reads(&user, &of_root) && !reads(&member, &of_root));
        assert!(reads(&user, &of_user) && !reads(&member, &of_user));
        assert!(!reads(&user, &of_group) && reads(&member, &of_group));
        assert!(reads(&Caller::test(0, &[]), &of_root));
        assert!(
            File::open(&of_root).is_ok(),
            "this thread has the rights that it had"
        );
        Ok(())
    }
}
