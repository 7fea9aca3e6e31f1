//! Process 1 of the guest.
//!
//! ```text
//! mounts, groups, limits ─► loopback, hostname ─► modules ─► [ports named ─► agent started] ─► wait for: devices, ended children, power signals
//! ```
//!
//! - It is driven by events: it listens to the kernel's uevents before it loads the first module, and never polls.
//! - It never ends: the kernel would panic. A step that fails is told on the console and the boot goes on, because a
//!   guest that can still answer is easier to mend than one that is silent.

mod agent;
mod modules;
mod mounts;
mod ports;
mod uevent;

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use agent::Agent;
use modules::Modules;
use uevent::Uevent;

use crate::EXIT_FAILED;
use crate::failure::{Doing as _, Failure};
use crate::sys::{self, Power, Reap, SignalFd, UeventSocket};

/// When the agent's port has not come by then, the console says so; the wait goes on.
const PORT_EXPECTED: Duration = Duration::from_secs(10);
/// The kernel's limit for a uevent is 2 KiB of variables behind a path.
const UEVENT_MAX_BYTES: usize = 8 * 1024;

/// The signals that busybox's `halt`, `poweroff` and `reboot` send to process 1, ctrl-alt-del's, and ended children.
const SIGNALS: [libc::c_int; 5] = [
    libc::SIGCHLD,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGINT,
];

pub(crate) fn main() -> u8 {
    tell(mounts::mount_all());
    tell(mounts::mount_groups());
    tell(agent::make_groups().doing(|| "make the control groups".to_owned()));
    tell(sys::set_limits().doing(|| "set the resource limits".to_owned()));
    tell(sys::loopback_up().doing(|| "bring the loopback interface up".to_owned()));
    tell(hostname());
    match Init::new() {
        Ok(init) => init.run(),
        Err(failure) => tell(Err(failure)),
    }
    // Only without signals or uevents: the kernel panics, and with `panic=1` and QEMU's -no-reboot the VM ends.
    EXIT_FAILED
}

/// Says on the console what went wrong.
fn tell(result: Result<(), Failure>) {
    if let Err(failure) = result {
        eprintln!("init: {failure}");
    }
}

fn hostname() -> Result<(), Failure> {
    let name = fs::read_to_string("/etc/hostname").doing(|| "read /etc/hostname".to_owned())?;
    sys::set_hostname(name.trim()).doing(|| "set the hostname".to_owned())
}

struct Init {
    signals: SignalFd,
    uevents: UeventSocket,
    modules: Modules,
    agent: Agent,
    /// `None` once the port was there, or its absence was told.
    port_expected: Option<Instant>,
}

impl Init {
    fn new() -> Result<Self, Failure> {
        let signals = SignalFd::new(&SIGNALS).doing(|| "watch for signals".to_owned())?;
        let uevents = UeventSocket::open().doing(|| "listen to uevents".to_owned())?;
        let modules = Modules::read();
        Ok(Self {
            signals,
            uevents,
            modules,
            agent: Agent::new(),
            port_expected: Some(Instant::now() + PORT_EXPECTED),
        })
    }

    fn run(mut self) -> ! {
        self.modules.load_for_boot();
        self.rescan();
        loop {
            self.reap();
            self.keep_agent();
            let wait = self
                .next_deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            match sys::poll_readable([self.signals.fd(), self.uevents.as_fd()], wait) {
                Ok([signalled, announced]) => {
                    if signalled {
                        self.take_signals();
                    }
                    if announced {
                        self.take_uevents();
                    }
                }
                Err(error) => tell(Err(Failure::new("poll", error))),
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        [self.agent.restart_at(), self.port_expected]
            .into_iter()
            .flatten()
            .min()
    }

    /// Names the ports, and loads what devices need that came before anybody listened.
    fn rescan(&mut self) {
        tell(ports::name_all());
        if ports::agent_port_exists() {
            self.port_expected = None;
        }
    }

    fn keep_agent(&mut self) {
        if ports::agent_port_exists() {
            self.agent.start_if_due();
        } else if self.port_expected.is_some_and(|at| Instant::now() >= at) {
            self.port_expected = None;
            eprintln!(
                "init: no virtio port named {} yet: has the VM a virtserialport with this name?",
                vmint_guest_protocol::PORT
            );
        }
    }

    fn reap(&mut self) {
        while let Reap::Ended(pid, ended) = sys::reap_any() {
            self.agent.on_child_ended(pid, ended);
        }
    }

    fn take_signals(&mut self) {
        let signals = self.signals.drain().unwrap_or_default();
        let power = signals.into_iter().find_map(|signal| match signal {
            libc::SIGUSR1 => Some(Power::Halt),
            libc::SIGUSR2 => Some(Power::Off),
            libc::SIGTERM | libc::SIGINT => Some(Power::Restart),
            _ => None,
        });
        if let Some(power) = power {
            sys::sync();
            tell(Err(Failure::new("end the machine", sys::power(power))));
        }
    }

    fn take_uevents(&mut self) {
        let mut buffer = [0; UEVENT_MAX_BYTES];
        let mut ports_changed = false;
        loop {
            match self.uevents.next(&mut buffer) {
                Ok(Some(bytes)) => {
                    let event = Uevent::parse(bytes);
                    ports_changed |= event.is_about_ports();
                    if let Some(alias) = event.new_device_alias() {
                        self.modules.load_for_device(alias);
                    }
                }
                Ok(None) => break,
                // Some were dropped because too many came at once: look for ourselves.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => ports_changed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tell(Err(Failure::new("read uevents", error)));
                    break;
                }
            }
        }
        if ports_changed {
            self.rescan();
        }
    }
}
