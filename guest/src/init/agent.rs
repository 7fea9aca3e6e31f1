//! The guest agent: started when its port is there, started again when it ends.
//!
//! What must outlive an agent is in a file without a name that process 1 holds, and hands to each agent as its standard
//! input (`agent::processes::memory`): killed with everything else by `kill -9 -1`, the next one goes on where it was.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::{ports, tell};
use crate::cgroups;
use crate::failure::Doing as _;
use crate::sys::{self, Ended, SpawnFailure, SpawnPlan};

const PROGRAM: &CStr = c"/usr/sbin/vmint-agent";

/// An agent that ends at once is not started in a tight loop: the pause doubles, up to the longest.
const PAUSE_SHORTEST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);
/// One that has lived this long was well; the pause starts over.
const WELL_AFTER: Duration = Duration::from_secs(10);

enum State {
    Running { pid: libc::pid_t, since: Instant },
    Ended { restart_at: Instant },
}

pub(super) struct Agent {
    /// `None`: the kernel has no such files, and nothing outlives an agent.
    memory: Option<File>,
    state: State,
    pause: Duration,
}

impl Agent {
    pub(super) fn new() -> Self {
        let memory = sys::anonymous_file("vmint-agent");
        let memory = memory.doing(|| "make the agent's memory".to_owned());
        Self {
            memory: memory.map_err(|failure| tell(Err(failure))).ok(),
            state: State::Ended {
                restart_at: Instant::now(),
            },
            pause: PAUSE_SHORTEST,
        }
    }

    /// When [`Self::start_if_due`] wants to be called next, while the agent does not run.
    pub(super) fn restart_at(&self) -> Option<Instant> {
        match self.state {
            State::Running { .. } => None,
            State::Ended { restart_at } => Some(restart_at).filter(|_| ports::agent_port_exists()),
        }
    }

    /// Starts the agent unless it runs or its pause is not over.
    pub(super) fn start_if_due(&mut self) {
        let now = Instant::now();
        if !matches!(self.state, State::Ended { restart_at } if restart_at <= now) {
            return;
        }
        match spawn(self.memory.as_ref()).doing(|| format!("start {}", PROGRAM.to_string_lossy())) {
            Ok(pid) => self.state = State::Running { pid, since: now },
            Err(failure) => {
                tell(Err(failure));
                self.pause_from(now);
            }
        }
    }

    pub(super) fn on_child_ended(&mut self, pid: libc::pid_t, ended: Ended) {
        let State::Running { pid: agent, since } = self.state else {
            return;
        };
        if agent != pid {
            return;
        }
        eprintln!("init: the agent ended ({ended:?}) and will be started again");
        if since.elapsed() >= WELL_AFTER {
            self.pause = PAUSE_SHORTEST;
        }
        self.pause_from(Instant::now());
    }

    fn pause_from(&mut self, now: Instant) {
        self.state = State::Ended {
            restart_at: now + self.pause,
        };
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
    }
}

/// The agent gets no environment, and gives commands the one that every program expects.
fn spawn(memory: Option<&File>) -> io::Result<libc::pid_t> {
    // The agent inherits this, and takes it from its commands. Process 1 is never ended anyway.
    let protected = sys::protect_from_oom();
    tell(protected.doing(|| "protect the agent from running out of memory".to_owned()));
    let nowhere = File::open("/dev/null")?;
    let group = File::open(cgroups::AGENT).ok();
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let words = [c"vmint-agent", c"--memory-on-stdin"];
    let started = sys::spawn(&SpawnPlan {
        files: &[PROGRAM.to_owned()],
        argv: &words[..1 + usize::from(memory.is_some())],
        env: &[],
        cwd: Some(c"/"),
        streams: [
            memory.unwrap_or(&nowhere).as_fd(),
            stdout.as_fd(),
            stderr.as_fd(),
        ],
        user: None,
        terminal: false,
        group: group.as_ref().map(File::as_fd),
    });
    // The end is told by a signal: process 1 waits for all its children in one place.
    started
        .map(|(pid, _)| pid)
        .map_err(SpawnFailure::into_error)
}

/// What the guest's groups are made of, beside [`super::mounts`]. Without them the agent does without.
pub(super) fn make_groups() -> io::Result<()> {
    for controller in cgroups::CONTROLLERS {
        allow(cgroups::ROOT, controller)?;
    }
    for group in [cgroups::AGENT, cgroups::PROCESSES] {
        match fs::create_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    // The most that there is: the host is answered however many processes want the processor.
    fs::write(format!("{}/cpu.weight", cgroups::AGENT), "10000")?;
    for controller in cgroups::CONTROLLERS {
        allow(cgroups::PROCESSES, controller)?;
    }
    Ok(())
}

/// The group's children may be bounded so.
fn allow(group: &str, controller: &str) -> io::Result<()> {
    let file = format!("{group}/{}", cgroups::SUBTREE_CONTROL);
    fs::write(file, format!("+{controller}"))
}
