//! What the service's own process is like: its panics, the rights of its files, and its place before the kernel's OOM killer.

use std::fs;
use std::io;

use nix::sys::stat::{Mode, umask};
use tracing::{debug, warn};

use crate::telemetry::log_panics;

/// Nothing of ours is for others; what they need is said file by file.
const UMASK: Mode = Mode::S_IRWXG.union(Mode::S_IRWXO);
/// Where the kernel reads how much sooner or later than others a process is killed when memory is out.
const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";
/// The service's own: later than anything ordinary. Hypervisors go first, and the next service would take up what is left.
const OOM_SCORE: i32 = -500;

/// Makes this process what the service and its guardian are to be. Call it before there are threads that make files.
pub fn settle_process(is_service: bool) {
    log_panics();
    umask(UMASK);
    if is_service && let Err(error) = lower_oom_score() {
        match error.kind() {
            // Only root may, or who has CAP_SYS_RESOURCE.
            io::ErrorKind::PermissionDenied => {
                debug!(%error, "the OOM score stays as it is");
            }
            _ => warn!(%error, "the OOM score cannot be set: {OOM_SCORE_ADJ}"),
        }
    }
}

/// One that is lower already is somebody's choice.
fn lower_oom_score() -> io::Result<()> {
    let now: i32 = fs::read_to_string(OOM_SCORE_ADJ)?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    if now > OOM_SCORE {
        fs::write(OOM_SCORE_ADJ, OOM_SCORE.to_string())?;
    }
    Ok(())
}
