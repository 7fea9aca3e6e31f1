//! The guest's control groups (v2), as process 1 makes them and the agent uses them.
//!
//! ```text
//! /sys/fs/cgroup            process 1
//! ├── agent                 the agent: most of the processor when it wants it
//! └── processes             memory.max for all of them together
//!     ├── 1                 one process of the host's, with all that descends from it: pids.max, killed as one
//!     └── 2 ...
//! ```

/// Where the hierarchy is mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
/// The agent's own group.
pub(crate) const AGENT: &str = "/sys/fs/cgroup/agent";
/// The parent of the groups of processes.
pub(crate) const PROCESSES: &str = "/sys/fs/cgroup/processes";
/// Controllers that the groups need. Where one is missing, none is used.
pub(crate) const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Which children have which controllers.
pub(crate) const SUBTREE_CONTROL: &str = "cgroup.subtree_control";
