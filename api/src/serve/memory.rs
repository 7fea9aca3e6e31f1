//! How much memory the host has for virtual machines: all of it, or what a container may have.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use procfs::process::Process;
use procfs::{Current, Meminfo, ProcError};
use tracing::{info, warn};
use vmint_cache::MemoryBudget;

/// Where cgroups of version 2 are, also in a container, which sees its own as the root. Older ones are not asked.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The share of the memory that there is, looked at once.
///
/// # Errors
/// `/proc` does not tell.
pub(super) fn budget(share: f64) -> Result<MemoryBudget, ProcError> {
    let total = Meminfo::current()?.mem_total;
    let limit = limit_of(Path::new(CGROUPS), &own_cgroup()?);
    let budget = MemoryBudget::of(limit.map_or(total, |limit| limit.min(total)), share);
    info!("virtual machines may have {budget}");
    Ok(budget)
}

/// The path of this process in the hierarchy of version 2.
fn own_cgroup() -> Result<PathBuf, ProcError> {
    let cgroups = Process::myself()?.cgroups()?;
    let unified = cgroups.into_iter().find(|cgroup| cgroup.hierarchy == 0);
    Ok(unified.map_or_else(PathBuf::new, |cgroup| PathBuf::from(cgroup.pathname)))
}

/// The smallest limit from a cgroup up to the root, bytes. A group that is not mounted here has none.
fn limit_of(root: &Path, cgroup: &Path) -> Option<u64> {
    let below = cgroup.strip_prefix("/").unwrap_or(cgroup);
    let groups = below.ancestors().map(|group| root.join(group));
    groups.filter_map(|group| own_limit(&group)).min()
}

/// `memory.max` is a number or the word `max`.
fn own_limit(group: &Path) -> Option<u64> {
    let file = group.join("memory.max");
    match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            warn!(file = %file.display(), %error, "a limit of memory cannot be read: it is not kept to");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let limit = |cgroup| limit_of(root.path(), Path::new(cgroup));
        assert_eq!(limit("/"), None);
        let group = root.path().join("a/b");
        fs::create_dir_all(&group)?;
        fs::write(group.join("memory.max"), "max\n")?;
        assert_eq!(limit("/a/b"), None);
        fs::write(root.path().join("a/memory.max"), "1000000\n")?;
        assert_eq!(
            (limit("/a/b"), limit("/a"), limit("/")),
            (Some(1_000_000), Some(1_000_000), None)
        );
        fs::write(group.join("memory.max"), "4096\n")?;
        assert_eq!(limit("/a/b"), Some(4096));
        // The path of another namespace: what is mounted here is the container's own.
        fs::write(root.path().join("memory.max"), "5000\n")?;
        assert_eq!(limit("/system.slice/x"), Some(5000));
        Ok(())
    }

    #[test]
    fn this_host_has_memory() -> Result<(), ProcError> {
        let (all, half) = (budget(1.0)?.bytes(), budget(0.5)?.bytes());
        assert!(half > 0 && half <= all / 2, "{half} of {all}");
        Ok(())
    }
}
