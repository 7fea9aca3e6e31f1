//! The file systems that every program expects.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use crate::cgroups;
use crate::failure::{Doing, Failure};
use crate::sys::{self, MountFlags};

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static CStr,
}

const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NO_PROGRAMS: MountFlags = NO_DEVICES.union(MountFlags::NOEXEC);

/// In this order: /dev/pts and /dev/shm are in the second one.
const MOUNTS: [Mount; 7] = [
    Mount {
        kind: "proc",
        target: "/proc",
        flags: NO_PROGRAMS,
        data: c"",
    },
    Mount {
        kind: "devtmpfs",
        target: "/dev",
        flags: MountFlags::NOSUID,
        data: c"mode=0755",
    },
    Mount {
        kind: "sysfs",
        target: "/sys",
        flags: NO_PROGRAMS,
        data: c"",
    },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: c"gid=5,mode=620,ptmxmode=666",
    },
    Mount {
        kind: "tmpfs",
        target: "/dev/shm",
        flags: NO_DEVICES,
        data: c"mode=1777",
    },
    Mount {
        kind: "tmpfs",
        target: "/run",
        flags: NO_DEVICES,
        data: c"mode=0755",
    },
    Mount {
        kind: "tmpfs",
        target: "/tmp",
        flags: NO_DEVICES,
        data: c"mode=1777",
    },
];

/// What udev would put into /dev.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

pub(super) fn mount_all() -> Result<(), Failure> {
    for mount in &MOUNTS {
        mount.make()?;
    }
    for (original, link) in LINKS {
        already(symlink(original, link), libc::EEXIST).doing(|| format!("link {link}"))?;
    }
    Ok(())
}

/// The control groups. A kernel without them boots all the same.
pub(super) fn mount_groups() -> Result<(), Failure> {
    let groups = Mount {
        kind: "cgroup2",
        target: cgroups::ROOT,
        flags: NO_PROGRAMS,
        data: c"",
    };
    groups.make()
}

impl Mount {
    fn make(&self) -> Result<(), Failure> {
        let target = self.target;
        fs::create_dir_all(target).doing(|| format!("create {target}"))?;
        let mounted = sys::mount(self.kind, target, self.kind, self.flags, self.data);
        already(mounted.map_err(io::Error::from), libc::EBUSY).doing(|| format!("mount {target}"))
    }
}

/// Done before us is done.
fn already(result: io::Result<()>, errno: i32) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        other => other,
    }
}
