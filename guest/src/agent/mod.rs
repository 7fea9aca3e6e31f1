//! `vmint-agent`: the resident program that the host talks to, through one virtio port (docs/agent-protocol.md).
//!
//! ```text
//!            ┌─► control ─┬─► identity, bind, ...  ─────────┐
//! port ─► frames          ├─► waits: for the kernel ────────┤
//!            │            └─► processes ◄─┐                 ├─► out ─► port
//!            └─► streams ─┬─► exec, attach┘ ────────────────┤
//!                         └─► files ────────────────────────┘
//! ```
//!
//! - One thread and one `poll`: [`server`] has the loop, and nothing here waits elsewhere for longer than a kernel call
//!   takes, but for `identity`'s wait for the kernel.
//! - A fresh clone under emulation pays for every piece of code that runs for the first time, and for every page that is
//!   written. So frames are built in a buffer that is kept, a process is started without copying page tables, and what
//!   a request does not need is not run.
//! - The host may go and come back at any time, and so may the agent: see [`server`] and [`processes`].

mod bind;
mod control;
pub mod decoders;
mod files;
mod inbox;
mod open;
mod order;
mod out;
mod port;
mod processes;
mod refusal;
mod request;
mod server;
#[cfg(test)]
mod tests;
mod waits;

use std::ffi::OsString;

use crate::{EXIT_FAILED, sys, usage};

/// Where the host is, unless the command line says otherwise.
fn usual_port() -> String {
    format!("/dev/virtio-ports/{}", vmint_guest_protocol::PORT)
}

pub(crate) fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let Some(options) = options(args) else {
        return usage("wrong options");
    };
    sys::return_big_allocations();
    sys::notice_protection();
    let memory = options
        .memory_on_stdin
        .then(processes::Memory::on_stdin)
        .flatten();
    let failure = match port::Port::open(&options.port) {
        Ok(port) => server::Server::new(port, memory).run(),
        Err(failure) => failure,
    };
    eprintln!("vmint-agent: {failure}");
    EXIT_FAILED
}

struct Options {
    port: String,
    memory_on_stdin: bool,
}

fn options(mut args: impl Iterator<Item = OsString>) -> Option<Options> {
    let mut options = Options {
        port: usual_port(),
        memory_on_stdin: false,
    };
    while let Some(option) = args.next() {
        match option.to_str()? {
            "--port" => options.port = args.next()?.to_string_lossy().into_owned(),
            "--memory-on-stdin" => options.memory_on_stdin = true,
            _ => return None,
        }
    }
    Some(options)
}

/// An entry of `poll`. Without a descriptor, one that is passed over.
fn poll_entry(fd: Option<libc::c_int>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd: fd.unwrap_or(-1),
        events,
        revents: 0,
    }
}
