//! vmint's own program inside the guest: one small static program under two names.
//!
//! | called as | by | does |
//! |---|---|---|
//! | `/init` (process 1) | the kernel | [`init`]: mounts, control groups, modules, virtio ports, the agent |
//! | `vmint-agent` | [`init`] | [`agent`]: answers the host, runs its commands, gives the clone its identity |
//!
//! It is static, starts no threads and goes without std's start-up (see [`sys::entry`]): in a fresh clone under emulation
//! every page of code that runs for the first time is translated first, and that is most of what a process costs.

#![cfg_attr(not(test), no_main)]
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

const USAGE: &str = "usage: vmint-agent [--port PATH] [--memory-on-stdin]";

const EXIT_FAILED: u8 = 1;
/// The exit code of a wrong command line.
const EXIT_USAGE: u8 = 2;

/// The whole program; [`sys::entry`] calls it.
#[cfg_attr(test, allow(dead_code))]
fn run_as_called() -> u8 {
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
