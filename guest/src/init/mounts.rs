//! The file systems that every program expects.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use crate::failure::{Doing, Failure};
use crate::sys;

struct Mount {
    kind: &'static CStr,
    target: &'static CStr,
    flags: libc::c_ulong,
    data: &'static CStr,
}

const NO_PROGRAMS: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
const NO_DEVICES: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

/// In this order: /dev/pts and /dev/shm are in the second one.
const MOUNTS: [Mount; 7] = [
    Mount {
        kind: c"proc",
        target: c"/proc",
        flags: NO_PROGRAMS,
        data: c"",
    },
    Mount {
        kind: c"devtmpfs",
        target: c"/dev",
        flags: libc::MS_NOSUID,
        data: c"mode=0755",
    },
    Mount {
        kind: c"sysfs",
        target: c"/sys",
        flags: NO_PROGRAMS,
        data: c"",
    },
    Mount {
        kind: c"devpts",
        target: c"/dev/pts",
        flags: libc::MS_NOSUID | libc::MS_NOEXEC,
        data: c"gid=5,mode=620,ptmxmode=666",
    },
    Mount {
        kind: c"tmpfs",
        target: c"/dev/shm",
        flags: NO_DEVICES,
        data: c"mode=1777",
    },
    Mount {
        kind: c"tmpfs",
        target: c"/run",
        flags: NO_DEVICES,
        data: c"mode=0755",
    },
    Mount {
        kind: c"tmpfs",
        target: c"/tmp",
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
        let target = mount.target.to_string_lossy();
        fs::create_dir_all(&*target).doing(|| format!("create {target}"))?;
        let mounted = sys::mount(mount.kind, mount.target, mount.flags, mount.data);
        already(mounted, libc::EBUSY).doing(|| format!("mount {target}"))?;
    }
    for (original, link) in LINKS {
        already(symlink(original, link), libc::EEXIST).doing(|| format!("link {link}"))?;
    }
    Ok(())
}

/// Done by somebody before us is done.
fn already(result: io::Result<()>, errno: i32) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        other => other,
    }
}
