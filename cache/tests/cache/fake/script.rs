//! What the fake factory is to do.

use std::collections::VecDeque;
use std::time::Duration;

use vmint_cache::IdentityDigest;
use vmint_factory::{GenerationId, KernelVersion, VmId};

/// How the next launch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launch {
    Up,
    UpAfter(Duration),
    /// Takes so many turns of the scheduler, and no time.
    UpAfterTurns(u32),
    Fails,
    FindsDamage,
    /// The hypervisor's program cannot be read.
    LacksHypervisor,
    Panics,
    Hangs,
}

/// How the next build goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    Succeeds,
    /// The file system of the generations is full, whatever the budget says.
    FindsNoRoom,
    Fails,
    Hangs,
}

/// What is on disk at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDisk {
    Valid,
    Stale,
    /// Stale, and clones of it can be made.
    Restorable,
    /// Valid, and cannot be compared with what is wanted.
    Unverified,
    Damaged,
    Nothing,
    Unreadable,
    /// The service has no descriptor left to look at it.
    Unopened,
    Hangs,
}

/// How devices go into the next machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attach {
    Succeeds,
    Fails,
    IsRefused,
    Hangs,
}

/// The script: each list is used up from the front, then the last word holds.
pub(crate) struct Script {
    pub on_disk: OnDisk,
    pub launches: VecDeque<Launch>,
    pub launch: Launch,
    pub builds: VecDeque<Build>,
    pub build: Build,
    /// How the clones of generations that are built from now on come up, where `launch` does not hold for them.
    pub of_generation: Option<Launch>,
    /// The kernel of generations that are made from now on, where it refuses virtual CPUs that are plugged in.
    pub refuses_vcpus: Option<KernelVersion>,
    /// What a generation would be built from now.
    pub recipe: u32,
    /// Why the kernel cannot be read, where that is so.
    pub unreadable: Option<&'static str>,
    /// Machines whose guests take no hostname, counted down.
    pub hostnames_refused: usize,
    /// Machines that die in the moment they are resumed, counted down.
    pub resumes_deadly: usize,
    pub attaches: VecDeque<Attach>,
    /// Machines whose random numbers are those of their template, counted down.
    pub not_reseeded: usize,
    /// Whether the run directory is full: the records of machines that are made from now on cannot be written.
    pub is_run_dir_full: bool,
    /// Machines that do not grow, counted down.
    pub growths_refused: usize,
    /// Whether machines end when they are told to.
    pub ends: bool,
    /// The generation that is on disk; a new one each time, where it is none.
    pub found: Option<GenerationId>,
    /// The generation whose files are not what was published.
    pub damaged: Option<GenerationId>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            on_disk: OnDisk::Valid,
            launches: VecDeque::new(),
            launch: Launch::UpAfter(Duration::from_millis(50)),
            builds: VecDeque::new(),
            build: Build::Succeeds,
            of_generation: None,
            refuses_vcpus: None,
            recipe: 1,
            unreadable: None,
            hostnames_refused: 0,
            resumes_deadly: 0,
            attaches: VecDeque::new(),
            not_reseeded: 0,
            is_run_dir_full: false,
            growths_refused: 0,
            ends: true,
            found: None,
            damaged: None,
        }
    }
}

impl Script {
    pub(super) fn next_launch(&mut self) -> Launch {
        self.launches.pop_front().unwrap_or(self.launch)
    }

    pub(super) fn next_build(&mut self) -> Build {
        self.builds.pop_front().unwrap_or(self.build)
    }

    pub(super) fn next_attach(&mut self) -> Attach {
        self.attaches.pop_front().unwrap_or(Attach::Succeeds)
    }

    /// What the next machine's random numbers come to.
    pub(super) fn next_digest(&mut self, id: &VmId) -> IdentityDigest {
        let random = if self.not_reseeded > 0 {
            "the template's".to_owned()
        } else {
            id.to_string()
        };
        self.not_reseeded = self.not_reseeded.saturating_sub(1);
        IdentityDigest {
            uuid: format!("uuid {random}"),
            random,
        }
    }

    /// Whether the next machine does not grow.
    pub(super) fn next_refuses_to_grow(&mut self) -> bool {
        let refuses = self.growths_refused > 0;
        self.growths_refused = self.growths_refused.saturating_sub(1);
        refuses
    }

    /// Whether the next machine takes no hostname.
    pub(super) fn next_refuses_hostnames(&mut self) -> bool {
        let refuses = self.hostnames_refused > 0;
        self.hostnames_refused = self.hostnames_refused.saturating_sub(1);
        refuses
    }

    /// Whether the next machine dies when it is resumed.
    pub(super) fn next_dies_resumed(&mut self) -> bool {
        let dies = self.resumes_deadly > 0;
        self.resumes_deadly = self.resumes_deadly.saturating_sub(1);
        dies
    }
}
