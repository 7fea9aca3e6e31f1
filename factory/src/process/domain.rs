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
use std::path::PathBuf;
use std::sync::OnceLock;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
    make_bitflags, path_beneath_rules,
};

use crate::sys;

/// The rights that are asked for: those of the newest interface that was tried with QEMU. What a kernel does not have of
/// them is left out.
const RIGHTS: ABI = ABI::V6;
/// The interface that brought TCP, and the one that brought signals and abstract sockets.
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
    /// When a kernel that has it refuses.
    pub(super) fn ruleset(&self) -> io::Result<Option<OwnedFd>> {
        let write = make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev});
        let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        let no_tcp: BitFlags<AccessNet> = match self.tcp {
            Tcp::None => AccessNet::BindTcp | AccessNet::ConnectTcp,
            Tcp::Connect => AccessNet::BindTcp.into(),
        };
        let made = || {
            Ruleset::default()
                .handle_access(AccessFs::from_all(RIGHTS))?
                .handle_access(no_tcp)?
                .scope(Scope::from_all(RIGHTS))?
                .create()?
                .add_rules(path_beneath_rules(
                    &self.programs,
                    AccessFs::from_read(RIGHTS),
                ))?
                .add_rules(path_beneath_rules(&self.read, read))?
                .add_rules(path_beneath_rules(&self.write, write))
        };
        made().map(Into::into).map_err(|error| {
            io::Error::other(format!("its Landlock domain cannot be made: {error}"))
        })
    }
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
    use super::*;

    #[test]
    fn an_older_kernel_is_described_by_what_it_lacks() {
        assert_eq!(
            Landlock::Abi(7).describe(),
            "ABI 7: files, other processes' memory, TCP ports, signals and abstract sockets"
        );
        assert_eq!(
            Landlock::Abi(4).describe(),
            "ABI 4: files, other processes' memory, TCP ports; signals and abstract sockets from Linux 6.12 on"
        );
        let off = reason(&io::Error::from_raw_os_error(nix::libc::EOPNOTSUPP));
        assert!(off.contains("lsm="), "{off}");
        let none = reason(&io::Error::from_raw_os_error(nix::libc::ENOSYS));
        assert!(none.contains("CONFIG_SECURITY_LANDLOCK"), "{none}");
    }
}
