//! The guest agent: started when its port is there, started again when it ends.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{ports, tell};
use crate::failure::Doing as _;
use crate::sys::{self, Ended};

const PROGRAM: &str = "/usr/sbin/qemu-ga";

/// An agent that ends at once is not started in a tight loop: the pause doubles, up to the longest.
const PAUSE_SHORTEST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);
/// One that has lived this long was well; the pause starts over.
const WELL_AFTER: Duration = Duration::from_secs(10);

enum State {
    Running { pid: u32, since: Instant },
    Ended { restart_at: Instant },
}

pub(super) struct Agent {
    state: State,
    pause: Duration,
}

impl Agent {
    pub(super) fn new() -> Self {
        Self { state: State::Ended { restart_at: Instant::now() }, pause: PAUSE_SHORTEST }
    }

    /// When [`Self::start_if_due`] wants to be called next, while the agent does not run.
    pub(super) fn restart_at(&self) -> Option<Instant> {
        match self.state {
            State::Running { .. } => None,
            State::Ended { restart_at } => Some(restart_at).filter(|_| ports::agent_port_exists()),
        }
    }

    /// Starts the agent unless it runs or its pause is not over. `unblocked` runs a closure with no signal blocked.
    pub(super) fn start_if_due(&mut self, unblocked: impl FnOnce(&dyn Fn() -> io::Result<Child>) -> io::Result<Child>) {
        let now = Instant::now();
        if !matches!(self.state, State::Ended { restart_at } if restart_at <= now) {
            return;
        }
        match unblocked(&spawn).doing(|| format!("start {PROGRAM}")) {
            // The handle is let go: process 1 waits for all its children in one place.
            Ok(child) => self.state = State::Running { pid: child.id(), since: now },
            Err(failure) => {
                tell(Err(failure));
                self.pause_from(now);
            }
        }
    }

    pub(super) fn on_child_ended(&mut self, pid: libc::pid_t, ended: Ended) {
        let State::Running { pid: agent, since } = self.state else { return };
        if i64::from(agent) != i64::from(pid) {
            return;
        }
        eprintln!("init: {PROGRAM} ended ({ended:?}) and will be started again");
        if since.elapsed() >= WELL_AFTER {
            self.pause = PAUSE_SHORTEST;
        }
        self.pause_from(Instant::now());
    }

    fn pause_from(&mut self, now: Instant) {
        self.state = State::Ended { restart_at: now + self.pause };
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
    }
}

/// The agent's environment is what every command in the guest starts from.
fn spawn() -> io::Result<Child> {
    Command::new(PROGRAM)
        .args(["--method=virtio-serial", "--statedir=/run"])
        .arg(format!("--path={}", ports::agent_port()))
        .env_clear()
        .envs([("PATH", sys::GUEST_PATH), ("HOME", "/root")])
        .stdin(Stdio::null())
        .current_dir("/")
        .spawn()
}
