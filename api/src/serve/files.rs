//! Open files: every connection and every virtual machine needs some.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// More than this is never needed, and some systems offer a billion.
const FILES_MAX: u64 = 65_536;
/// Connections may take this part of the files; the rest is for virtual machines.
const CONNECTIONS_SHARE: u64 = 4;

/// Raises the limit of open files as far as it can be raised, and gives what it is then.
pub(super) fn raise_limit() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            warn!(%error, "the limit of open files cannot be read");
            return 1024;
        }
    };
    let wanted = hard.min(FILES_MAX).max(soft);
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(error) => {
            warn!(%error, soft, wanted, "the limit of open files cannot be raised");
            soft
        }
    }
}

/// How many connections a listener may hold with so many files.
pub(super) fn connections_max(files: u64, wanted: usize) -> usize {
    usize::try_from(files / CONNECTIONS_SHARE)
        .unwrap_or(usize::MAX)
        .clamp(1, wanted)
}
