//! The guest agent: started when its port is there, started again when it ends. It is our own one, unless the kernel's
//! command line asks for the stock one.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{ports, tell};
use crate::failure::Doing as _;
use crate::sys::{self, Ended};

const OWN: &str = "/usr/sbin/vmint-agent";
const STOCK: &str = "/usr/sbin/qemu-ga";
/// The word on the kernel's command line that asks for the stock agent.
const STOCK_WORD: &str = "vmint.agent=qemu-ga";

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
    program: &'static str,
    state: State,
    pause: Duration,
}

impl Agent {
    pub(super) fn new() -> Self {
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self {
            program: chosen(&command_line),
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

    /// Starts the agent unless it runs or its pause is not over. `unblocked` runs a closure with no signal blocked.
    pub(super) fn start_if_due(
        &mut self,
        unblocked: impl FnOnce(&dyn Fn() -> io::Result<Child>) -> io::Result<Child>,
    ) {
        let now = Instant::now();
        if !matches!(self.state, State::Ended { restart_at } if restart_at <= now) {
            return;
        }
        let program = self.program;
        match unblocked(&|| spawn(program)).doing(|| format!("start {program}")) {
            // The handle is let go: process 1 waits for all its children in one place.
            Ok(child) => {
                self.state = State::Running {
                    pid: child.id(),
                    since: now,
                }
            }
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
        if i64::from(agent) != i64::from(pid) {
            return;
        }
        eprintln!(
            "init: {} ended ({ended:?}) and will be started again",
            self.program
        );
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

fn chosen(command_line: &str) -> &'static str {
    if command_line
        .split_ascii_whitespace()
        .any(|word| word == STOCK_WORD)
    {
        STOCK
    } else {
        OWN
    }
}

/// The agent's environment is what every command in the guest starts from.
fn spawn(program: &str) -> io::Result<Child> {
    let mut command = Command::new(program);
    if program == OWN {
        // It inherits this, and takes it from its commands. Process 1 is never ended anyway.
        let protected = sys::protect_from_oom();
        tell(protected.doing(|| "protect the agent from running out of memory".to_owned()));
    } else {
        command
            .args(["--method=virtio-serial", "--statedir=/run"])
            .arg(format!("--path={}", ports::agent_port()));
    }
    command
        .env_clear()
        .envs([("PATH", sys::GUEST_PATH), ("HOME", "/root")])
        .stdin(Stdio::null())
        .current_dir("/")
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_agent_unless_asked_for_the_other() {
        assert_eq!(chosen(""), OWN);
        assert_eq!(chosen("quiet vmint.agent=vmint-agent panic=1\n"), OWN);
        assert_eq!(chosen("quiet vmint.agent=qemu-ga panic=1\n"), STOCK);
        assert_eq!(chosen("vmint.agent=qemu-gax"), OWN);
    }
}
