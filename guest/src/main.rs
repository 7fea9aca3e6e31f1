//! vmint's own program inside the guest: one small static program under several names.
//!
//! | called as | by | does |
//! |---|---|---|
//! | `/init` (process 1) | the kernel | [`init`]: mounts, modules, virtio ports, the agent |
//! | `vmint-agent` | [`init`] | [`agent`]: answers the host, runs its commands, gives the clone its identity |
//! | `helper run` | `qemu-ga`'s guest-exec | [`run`]: one command with a deadline and capped output |
//! | `helper identity` | `qemu-ga`'s guest-exec | [`identity`]: makes a fresh clone a machine of its own |
//! | `helper prepare` | `qemu-ga`'s guest-exec | [`prepare`]: last step before the template is saved |
//! | `/sbin/hwclock` | `qemu-ga`'s guest-set-time | [`hwclock`]: copies the clock to or from the RTC |
//!
//! It is static, starts no threads and goes without std's start-up (see [`sys::entry`]): in a fresh clone under emulation
//! every page of code that runs for the first time is translated first, and that is most of what a process costs.

#![cfg_attr(not(test), no_main)]
#![warn(unreachable_pub)]

mod agent;
mod base64;
mod command;
mod failure;
mod file;
mod hex;
mod hwclock;
mod identity;
mod init;
mod json;
mod prepare;
mod run;
mod sys;

use std::ffi::{OsStr, OsString};
use std::path::Path;

const USAGE: &str =
    "usage: helper run [--timeout-ms N] [--max-output BYTES] [--cwd DIR] [--env K=V]... -- ARGV...
       helper identity < key=value lines
       helper prepare
       helper agent [--port PATH]
       hwclock -w | -s";

const EXIT_DONE: u8 = 0;
const EXIT_FAILED: u8 = 1;
/// The exit code of a wrong command line.
const EXIT_USAGE: u8 = 2;

/// The whole program; [`sys::entry`] calls it.
#[cfg_attr(test, allow(dead_code))]
fn run_as_called() -> u8 {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    if std::process::id() == 1 {
        return init::main();
    }
    match Path::new(&program).file_name().and_then(OsStr::to_str) {
        Some("hwclock") => return hwclock::main(args),
        Some("vmint-agent") => return agent::main(args),
        _ => {}
    }
    let command = args.next().unwrap_or_default();
    dispatch(&command, args)
}

fn dispatch(command: &OsStr, args: impl Iterator<Item = OsString>) -> u8 {
    match command.to_str() {
        Some("run") => run::main(args),
        Some("identity") => identity::main(),
        Some("prepare") => prepare::main(),
        Some("agent") => agent::main(args),
        _ => usage("which command?"),
    }
}

/// Says what was wrong with the command line, and how it goes.
fn usage(wrong: &str) -> u8 {
    eprintln!("helper: {wrong}\n{USAGE}");
    EXIT_USAGE
}
