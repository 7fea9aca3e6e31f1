//! `vmint-agent`: the resident program that the host talks to, through one virtio port (docs/agent-protocol.md).
//!
//! ```text
//! port ─► inbox ─► request ─► calls ─┬─► outbox ─► port
//!                                    └─► jobs: processes, answered when they end ─► outbox
//! ```
//!
//! - One thread and one `poll`: [`server`] has the loop, and nothing here waits elsewhere for longer than a kernel call
//!   takes, but for `vmint-identity`'s wait for the kernel.
//! - A fresh clone under emulation pays for every piece of code that runs for the first time, and for every page that is
//!   written. So replies are built in buffers that are kept, a process is started without copying page tables, and what
//!   a request does not need is not run.
//! - The host may go and come back at any time; a command that runs then keeps its deadline.

mod bind;
mod calls;
mod errors;
mod identity;
mod inbox;
mod job;
mod jobs;
mod kin;
mod orders;
mod outbox;
mod port;
mod process;
mod request;
mod server;
#[cfg(test)]
mod tests;
mod waits;

use std::ffi::OsString;

use crate::{EXIT_FAILED, sys, usage};

/// Where the host is, unless the command line says otherwise.
const PORT: &str = "/dev/virtio-ports/org.qemu.guest_agent.0";
/// Longest request, without its line end.
const LINE_MAX_BYTES: usize = 16 * 1024 * 1024;

pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> u8 {
    let path = match (args.next(), args.next(), args.next()) {
        (None, None, None) => PORT.to_owned(),
        (Some(option), Some(path), None) if option == "--port" => {
            path.to_string_lossy().into_owned()
        }
        _ => return usage("agent takes --port and a path, or nothing"),
    };
    sys::return_big_allocations();
    sys::notice_protection();
    let failure = match port::Port::open(&path) {
        Ok(port) => server::Server::new(port).run(),
        Err(failure) => failure,
    };
    eprintln!("vmint-agent: {failure}");
    EXIT_FAILED
}
