//! `helper run`: one command, with a deadline and capped output, that background children cannot hold open.
//!
//! ```text
//!  qemu-ga ──stdin──────────────────────────► command   own process group, in the helper's session
//!          ◄─stdout, stderr── helper ◄─pipes── command
//! ```
//!
//! What always holds:
//! - Memory does not grow with the output: bytes pass through one buffer, those beyond the cap are read and dropped.
//! - The run ends when the *main* child has ended. What its pipes hold at that moment is passed on; children that it
//!   left behind live on, and get SIGPIPE or EPIPE should they go on writing there.
//! - At the deadline everything that descends from the command is killed, also what changed its process group.
//! - The last bytes on stderr are the [`trailer`], for every command line that could be understood.

mod args;
mod descendants;
mod spawn;
mod supervise;
mod trailer;

use std::ffi::OsString;
use std::io::{self, Write as _};

use supervise::End;
use trailer::Trailer;

use crate::{EXIT_DONE, EXIT_FAILED};

/// The exit code after SIGTERM and its like: 128 + 15, as shells have it.
const EXIT_TERMINATED: u8 = 143;

pub(crate) fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let request = match args::parse(args) {
        Ok(request) => request,
        Err(wrong) => return crate::usage(&wrong.to_string()),
    };
    let trailer = match spawn::start(&request) {
        Ok(started) => match supervise::supervise(started, &request) {
            Ok(End::Ran(trailer)) => trailer,
            Ok(End::Terminated) => return EXIT_TERMINATED,
            Err(failure) => {
                eprintln!("helper: {failure}");
                return EXIT_FAILED;
            }
        },
        Err(error) => Trailer::not_spawned(error),
    };
    match io::stderr().write_all(trailer.to_bytes().as_slice()) {
        Ok(()) => EXIT_DONE,
        Err(_) => EXIT_FAILED,
    }
}
