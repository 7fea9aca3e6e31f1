//! vmint's own program inside the guest: one small static program under two names.
//!
//! | called as | by | does |
//! |---|---|---|
//! | `/init` (process 1) | the kernel | [`init`]: mounts, control groups, modules, virtio ports, the agent |
//! | `vmint-agent` | [`init`] | [`agent`]: answers the host, runs its commands, gives the clone its identity |
//!
//! All of it is here, in a library, so that fuzz targets reach [`decoders`]; the program itself is only its entry.
//!
//! It is static, starts no threads and goes without std's start-up (see [`main`]): in a fresh clone under emulation
//! every page of code that runs for the first time is translated first, and that is most of what a process costs.

#![warn(unreachable_pub)]

mod agent;
mod cgroups;
mod command;
mod failure;
mod file;
mod identity;
mod init;
mod json;
mod sys;

pub use agent::decoders;

const USAGE: &str = "usage: vmint-agent [--port PATH] [--memory-on-stdin]";

const EXIT_FAILED: u8 = 1;
/// The exit code of a wrong command line.
const EXIT_USAGE: u8 = 2;

/// The whole program. The C library's start-up hands over to it, without std's own.
///
/// That looks for the guard page of the main thread's stack, which means reading /proc/self/maps, and installs handlers
/// to tell a stack overflow from other crashes. This program has no use for either, and in a fresh clone under emulation
/// they are a large part of its start.
#[must_use]
pub fn main() -> u8 {
    sys::be_as_started_by_the_kernel();
    if std::process::id() == 1 {
        return init::main();
    }
    agent::main(std::env::args_os().skip(1))
}

/// Says what was wrong with the command line, and how it goes.
fn usage(wrong: &str) -> u8 {
    eprintln!("vmint-agent: {wrong}\n{USAGE}");
    EXIT_USAGE
}
