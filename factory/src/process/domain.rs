//! The Landlock domain of a process: what it may still open by path, once it has been started.
//!
//! The kernel also keeps a domain's processes from looking into any process outside it (`/proc/<pid>/mem`, `environ`,
//! `ptrace`), and from Linux 6.12 on from signalling one and from dialling an abstract socket. Each hypervisor has a
//! domain of its own: one that a guest broke out of cannot reach another, though both run as the same user.
//!
//! Descriptors that are open already are not affected: sockets, console log, device state, disks and taps.
//!
//! The ruleset is made before the fork; between fork and exec one system call enters it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};
use nix::sys::stat::{SFlag, fstat};

use crate::shortage::in_words;
use crate::sys;

/// The rights that are asked for: those of the newest interface that was tried with QEMU. What a kernel does not have of
/// them is left out.
const RIGHTS: ABI = ABI::V6;
/// The interfaces that brought the truncation of files, TCP, and signals and abstract sockets.
const TRUNCATION_SINCE: u32 = 3;
const TCP_SINCE: u32 = 4;
const SCOPES_SINCE: u32 = 6;

/// What a process may do with TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tcp {
    /// Neither connect nor take a port.
    #[default]
    None,
    /// Connect: the hypervisor's own network does that for a guest.
    Connect,
}

/// What a process may open by path. Paths that do not exist are passed over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domain {
    /// Programs and libraries, and folders of such: to read and to execute.
    pub(crate) programs: Vec<PathBuf>,
    /// Files, and folders with all that is in them: to read.
    pub(crate) read: Vec<PathBuf>,
    /// Files and devices: to read, to write, and for devices' own calls.
    pub(crate) write: Vec<PathBuf>,
    pub(crate) tcp: Tcp,
}

impl Domain {
    /// Makes the ruleset, on the files that the paths lead to now. None where the kernel has no Landlock.
    ///
    /// # Errors
    /// When a path that exists cannot be opened, because the service has no descriptor left for instance: a process
    /// without that rule would fail for no fault of its own. And when a kernel that has Landlock refuses.
    pub(super) fn ruleset(&self) -> io::Result<Option<OwnedFd>> {
        let write = make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev});
        let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        let no_tcp: BitFlags<AccessNet> = match self.tcp {
            Tcp::None => AccessNet::BindTcp | AccessNet::ConnectTcp,
            Tcp::Connect => AccessNet::BindTcp.into(),
        };
        let failed = |error: &dyn std::fmt::Display| {
            io::Error::other(format!("its Landlock domain cannot be made: {error}"))
        };
        let mut rules = Vec::new();
        for (paths, access) in [
            (&self.programs, AccessFs::from_read(RIGHTS)),
            (&self.read, read),
            (&self.write, write),
        ] {
            for path in paths {
                rules.extend(rule(path, access).map_err(|error| failed(&error))?);
            }
        }
        let made = || {
            Ruleset::default()
                .handle_access(AccessFs::from_all(RIGHTS))?
                .handle_access(no_tcp)?
                .scope(Scope::from_all(RIGHTS))?
                .create()?
                .add_rules(rules.into_iter().map(Ok::<_, RulesetError>))
        };
        made().map(Into::into).map_err(|error| failed(&error))
    }
}

/// What may be done with what a path leads to; none where that does not exist.
fn rule(path: &Path, access: BitFlags<AccessFs>) -> io::Result<Option<PathBeneath<PathFd>>> {
    let opened = match PathFd::new(path) {
        Ok(opened) => opened,
        Err(PathFdError::OpenCall { source, .. }) => {
            return match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
                _ => Err(in_words(format!("{}: {source}", path.display()), source)),
            };
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    // Some rights are those of folders alone.
    let kind = SFlag::from_bits_truncate(fstat(&opened)?.st_mode) & SFlag::S_IFMT;
    let access = match kind == SFlag::S_IFDIR {
        true => access,
        false => access & AccessFs::from_file(RIGHTS),
    };
    Ok(Some(PathBeneath::new(opened, access)))
}

/// What this host's kernel has of Landlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Landlock {
    /// The version of its interface.
    Abi(u32),
    /// Nothing.
    Missing {
        /// Why.
        reason: String,
    },
}

impl Landlock {
    /// What this host's kernel has. It is asked once: a kernel does not change.
    pub(crate) fn of_this_host() -> &'static Self {
        static FOUND: OnceLock<Landlock> = OnceLock::new();
        FOUND.get_or_init(|| match sys::landlock_abi() {
            Ok(version) => Self::Abi(version),
            Err(error) => Self::Missing {
                reason: reason(&error),
            },
        })
    }

    /// What it does for a process in a domain, or why it does nothing.
    pub(crate) fn describe(&self) -> String {
        let version = match self {
            Self::Abi(version) => *version,
            Self::Missing { reason } => return reason.clone(),
        };
        let mut forbids = vec!["files", "other processes' memory"];
        let mut lacks = Vec::new();
        for (name, since, linux) in [
            ("truncation of files", TRUNCATION_SINCE, "6.2"),
            ("TCP ports", TCP_SINCE, "6.7"),
            ("signals and abstract sockets", SCOPES_SINCE, "6.12"),
        ] {
            if version >= since {
                forbids.push(name);
            } else {
                lacks.push(format!("{name} from Linux {linux} on"));
            }
        }
        let mut text = format!("ABI {version}: {}", forbids.join(", "));
        if !lacks.is_empty() {
            text.push_str(&format!("; {}", lacks.join("; ")));
        }
        text
    }
}

fn reason(error: &io::Error) -> String {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSYS) => {
            "the kernel was built without Landlock (CONFIG_SECURITY_LANDLOCK, Linux 5.13)"
                .to_owned()
        }
        Some(Errno::EOPNOTSUPP) => {
            "Landlock is switched off in this kernel: add landlock to its parameter lsm=".to_owned()
        }
        _ => format!("the kernel does not let Landlock be used: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_path_that_cannot_be_opened_is_no_path_that_is_missing() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (file, missing) = (folder.path().join("file"), folder.path().join("missing"));
        fs::write(&file, "")?;
        let with = |path: &Path| Domain {
            read: vec![folder.path().to_owned(), file.clone(), path.to_owned()],
            ..Domain::default()
        };
        with(&missing).ruleset()?;
        with(&file.join("below")).ruleset()?;
        let unopened = folder.path().join("loop");
        std::os::unix::fs::symlink("loop", &unopened)?;
        let refused = with(&unopened).ruleset().err().map(|e| e.to_string());
        let refused = refused.unwrap_or_default();
        let says = format!(
            "its Landlock domain cannot be made: {}: ",
            unopened.display()
        );
        assert!(refused.starts_with(&says), "{refused}");
        Ok(())
    }

    #[test]
    fn an_older_kernel_is_described_by_what_it_lacks() {
        assert_eq!(
            Landlock::Abi(7).describe(),
            "ABI 7: files, other processes' memory, truncation of files, TCP ports, signals and abstract sockets"
        );
        assert_eq!(
            Landlock::Abi(4).describe(),
            "ABI 4: files, other processes' memory, truncation of files, TCP ports; \
             signals and abstract sockets from Linux 6.12 on"
        );
        assert_eq!(
            Landlock::Abi(1).describe(),
            "ABI 1: files, other processes' memory; truncation of files from Linux 6.2 on; \
             TCP ports from Linux 6.7 on; signals and abstract sockets from Linux 6.12 on"
        );
        let off = reason(&io::Error::from_raw_os_error(nix::libc::EOPNOTSUPP));
        assert!(off.contains("lsm="), "{off}");
        let none = reason(&io::Error::from_raw_os_error(nix::libc::ENOSYS));
        assert!(none.contains("CONFIG_SECURITY_LANDLOCK"), "{none}");
    }
}
