//! What the service's own process is like: its panics, the rights of its files, and its place before the kernel's OOM killer.

use std::fs;
use std::io;
use std::path::Path;

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
    if is_service && let Err(error) = lower_oom_score(Path::new(OOM_SCORE_ADJ)) {
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
fn lower_oom_score(file: &Path) -> io::Result<()> {
    let now: i32 = fs::read_to_string(file)?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    if now > OOM_SCORE {
        fs::write(file, OOM_SCORE.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a file in the kernel's place: root in a container may lack the right to lower its own score.
    #[test]
    fn a_score_is_lowered_and_one_that_is_lower_stays() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("oom_score_adj");
        for (score, lowered) in [
            (0, -500),
            (1000, -500),
            (-499, -500),
            (-500, -500),
            (-900, -900),
        ] {
            fs::write(&file, format!("{score}\n"))?;
            lower_oom_score(&file)?;
            let found = fs::read_to_string(&file)?;
            assert_eq!(found.trim(), lowered.to_string(), "{score}");
        }
        fs::write(&file, "much\n")?;
        assert!(lower_oom_score(&file).is_err());
        Ok(())
    }
}
