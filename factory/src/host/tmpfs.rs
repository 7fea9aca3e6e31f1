//! The file system of the generations: a tmpfs, so that clones map the very pages that the template left.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs, statfs};
use nix::unistd::Uid;

use super::{directory, place};

/// The source of our own mounts, by which they are known.
pub(super) const SOURCE: &str = "vmint";

/// Why generations have no place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TmpfsError {
    /// A directory cannot be made.
    #[error("cannot use {} for templates: {source}", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The mount failed.
    #[error("cannot mount a tmpfs at {}: {source}; mount one there, or set host.template_path to one", .path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Makes the template path, and opens it: as root a tmpfs is mounted there when it is none. Hypervisors pass through it to
/// their generation's folder and see nothing else of it, which is what its mode is for.
///
/// # Errors
/// When it cannot be made, others can change it, or nothing can be mounted.
pub(super) fn prepare(path: &Path) -> Result<File, TmpfsError> {
    let unusable = |source| TmpfsError::Directory {
        path: path.to_owned(),
        source,
    };
    // The hypervisor's user passes through what is above.
    let found = directory::make_own(path, passable_mode(), place::open_mode()).map_err(unusable)?;
    let magic = fstatfs(&found).map_err(|errno| unusable(errno.into()))?;
    if magic.filesystem_type() == TMPFS_MAGIC {
        return Ok(found);
    }
    if !Uid::effective().is_root() {
        tracing::warn!(
            path = %path.display(),
            "the template path is no tmpfs: clones will be slower, and their template is written to a disk"
        );
        return Ok(found);
    }
    mount_tmpfs(path, &found)?;
    directory::open_own(path).map_err(unusable)
}

/// The mode of a folder of generations: as root others pass through it and do no more; a plain user's is theirs alone.
pub(crate) fn passable_mode() -> u32 {
    if Uid::effective().is_root() {
        0o711
    } else {
        0o700
    }
}

pub(super) fn is_tmpfs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == TMPFS_MAGIC)
}

/// The size is the kernel's default, half of the memory: a limit, not a reservation. What a template takes is
/// reserved, and refused when it does not fit, before it boots.
fn mount_tmpfs(path: &Path, directory: &File) -> Result<(), TmpfsError> {
    // The very directory that was looked at, whatever its name leads to by now.
    let target = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some(SOURCE),
        target.as_str(),
        Some("tmpfs"),
        flags,
        Some("mode=0750"),
    )
    .map_err(|e| TmpfsError::Mount {
        path: path.to_owned(),
        source: e.into(),
    })?;
    tracing::info!(path = %path.display(), "mounted a tmpfs for templates");
    Ok(())
}

/// Whether one of our own mounts is at this path.
pub(super) fn is_our_mount(path: &Path) -> bool {
    // The kernel names it without links.
    let Ok(path) = fs::canonicalize(path) else {
        return false;
    };
    let mounts = procfs::process::Process::myself().and_then(|me| me.mountinfo());
    mounts.is_ok_and(|mounts| {
        mounts.into_iter().any(|m| {
            m.mount_point == path
                && m.fs_type == "tmpfs"
                && m.mount_source.as_deref() == Some(SOURCE)
        })
    })
}
