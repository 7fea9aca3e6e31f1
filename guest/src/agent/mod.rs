//! `vmint-agent`: the resident program that the host talks to, through one virtio port (docs/agent-protocol.md).
//!
//! ```text
//! port ─► inbox ─► request ─► calls ─┬─► outbox ─► port
//!                                    ├─► jobs: processes, answered when they end ─► outbox
//!                                    └─► waits: for the kernel, answered when it is done ─► outbox
//! stream port ◄─► streams: processes and files, in frames
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
mod streams;
#[cfg(test)]
mod tests;
mod waits;

use std::ffi::OsString;

use crate::{EXIT_FAILED, sys, usage};

/// Where the host is, unless the command line says otherwise.
const PORT: &str = "/dev/virtio-ports/org.qemu.guest_agent.0";
/// Where streams go, from when they are first asked for.
const STREAM_PORT: &str = "/dev/virtio-ports/vmint.stream.0";
/// Longest request, without its line end.
const LINE_MAX_BYTES: usize = 16 * 1024 * 1024;

pub(crate) fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let Some((path, stream_path)) = paths(args) else {
        return usage("agent takes --port and --stream-port, each with a path, or nothing");
    };
    sys::return_big_allocations();
    sys::notice_protection();
    let open_stream_port = Box::new(move || port::Port::open(&stream_path));
    let failure = match port::Port::open(&path) {
        Ok(port) => server::Server::new(port, open_stream_port).run(),
        Err(failure) => failure,
    };
    eprintln!("vmint-agent: {failure}");
    EXIT_FAILED
}

fn paths(mut args: impl Iterator<Item = OsString>) -> Option<(String, String)> {
    let (mut port, mut stream_port) = (PORT.to_owned(), STREAM_PORT.to_owned());
    while let Some(option) = args.next() {
        let path = match option.to_str()? {
            "--port" => &mut port,
            "--stream-port" => &mut stream_port,
            _ => return None,
        };
        *path = args.next()?.to_string_lossy().into_owned();
    }
    Some((port, stream_port))
}
