//! Room for a template's memory, before anything boots.
//!
//! A hypervisor that finds the tmpfs full in the middle of a boot dies of SIGBUS without a word. So the whole file
//! is allocated first, and the host's free memory is looked at: a tmpfs is memory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use crate::text;

const MIB: u64 = 1024 * 1024;
/// What a generation takes beside its memory: the state (0.4 MiB), the stub, and while it boots the kernel and
/// initial RAM disk (10 to 60 MiB).
const BESIDE_BYTES: u64 = 96 * MIB;

/// What the state takes at most, with what its file system takes for it.
const STATE_BYTES: u64 = MIB;

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// The file system is too small or too full.
    #[error(
        "{} has {} free and the template needs {}: enlarge it (mount -o remount,size=... {}), remove what is in it, \
         or give the template less memory",
        .path.display(), text::bytes(*.free), text::bytes(*.needed), .path.display()
    )]
    FileSystem {
        /// The template path.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// The host has too little free memory.
    #[error(
        "the host has {} of memory available and the template needs {}: give the template less memory, or end something",
        text::bytes(*.available), text::bytes(*.needed)
    )]
    Host {
        /// Available bytes.
        available: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// The allocation failed.
    #[error("cannot reserve {} in {}: {source}", text::bytes(*.needed), .path.display())]
    Allocate {
        /// The memory file.
        path: PathBuf,
        /// Needed bytes.
        needed: u64,
        /// Why not.
        source: io::Error,
    },
}

/// Looks whether a template of this size has room in `template_path`.
pub(crate) fn check_room(template_path: &Path, memory_mib: u64) -> Result<(), RoomError> {
    let needed = memory_mib * MIB + BESIDE_BYTES;
    let path = template_path.to_owned();
    let stat = nix::sys::statvfs::statvfs(template_path).map_err(|e| RoomError::Allocate {
        path: path.clone(),
        needed,
        source: e.into(),
    })?;
    let free = stat.blocks_available() * stat.fragment_size();
    if free < needed {
        return Err(RoomError::FileSystem { path, free, needed });
    }
    let available = available_memory().unwrap_or(u64::MAX);
    if available < needed {
        return Err(RoomError::Host { available, needed });
    }
    Ok(())
}

/// Whether a device state does not fit any more.
pub(crate) fn is_full(template_path: &Path) -> bool {
    let stat = nix::sys::statvfs::statvfs(template_path);
    stat.is_ok_and(|stat| stat.blocks_available() * stat.fragment_size() < STATE_BYTES)
}

/// Makes the file as long as the memory, with every block allocated. It blocks: 256 MiB take some 50 ms.
pub(super) fn allocate(file: &File, path: &Path, memory_mib: u64) -> Result<(), RoomError> {
    let needed = memory_mib * MIB;
    let refused = |source: io::Error| RoomError::Allocate {
        path: path.to_owned(),
        needed,
        source,
    };
    let length = i64::try_from(needed).map_err(|e| refused(io::Error::other(e)))?;
    fallocate(file, FallocateFlags::empty(), 0, length).map_err(|e| refused(e.into()))
}

/// What the kernel estimates can be taken without swapping (`MemAvailable`), bytes.
fn available_memory() -> Option<u64> {
    use procfs::Current;
    procfs::Meminfo::current().ok()?.mem_available
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_cannot_fit_is_refused_with_both_numbers() {
        let huge = 1 << 40;
        let refusal = check_room(Path::new("/tmp"), huge).map_err(|e| e.to_string());
        let text = refusal.expect_err("an exabyte does not fit");
        assert!(
            text.contains("/tmp has ") && text.contains("needs "),
            "{text}"
        );
    }

    #[test]
    fn allocated_files_have_their_blocks() -> anyhow::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile()?;
        allocate(&file, Path::new("f"), 3)?;
        assert_eq!(file.metadata()?.len(), 3 * MIB);
        assert!(file.metadata()?.blocks() * 512 >= 3 * MIB);
        Ok(())
    }
}
