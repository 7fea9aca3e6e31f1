//! The stream port: commands, terminals and files in frames (docs/agent-protocol.md, "Streams").
//!
//! ```text
//! port ─► frame ─► mux ─┬─► exec ──┬─► out ─► port
//!                       └─► files ─┘
//! ```
//!
//! - Nothing of this exists before a host asks for it, with `vmint-stream-reset`.
//! - Memory is bounded, whatever the host and the commands do: input by the credit that the host has, output by one small
//!   buffer that everything is read into, frame by frame, in turns.
//! - When the host has gone for longer than a moment, all streams end, with their commands and half-written files.

mod exec;
mod files;
mod frame;
mod input;
mod link;
mod mux;
mod open;
mod out;
mod stream;

pub(super) use frame::Nonce;
pub(super) use link::{OpenPort, Streams};

use std::io;

use self::input::OverCredit;
use crate::json::Object;
use crate::sys;

/// Streams that are open at once.
const OPEN_MAX: usize = 64;
/// What each side may send of a channel before the other has said anything.
const CREDIT_BYTES: u32 = 256 * 1024;
/// Credit is given back in steps of this, so that it costs few frames and the sender never runs dry.
const CREDIT_STEP_BYTES: u32 = 64 * 1024;
/// Descriptors that a stream may have to be polled for.
const ENTRIES: usize = 4;
/// Of a message that the host is told: no reason needs more.
const MESSAGE_MAX_CHARS: usize = 1024;

/// The channels.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// What has become of a stream.
enum Step {
    GoOn,
    /// It has ended; this is its RESULT.
    Done(String),
}

/// Why a stream has failed.
#[derive(Debug)]
struct Trouble {
    errno: i32,
    message: String,
}

impl Trouble {
    /// By no word of the kernel.
    fn own(message: impl Into<String>) -> Self {
        Self {
            errno: 0,
            message: message.into(),
        }
    }

    fn of_file(path: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let reason = match errno {
            0 => error.to_string(),
            errno => sys::error_text(errno),
        };
        Self {
            errno,
            message: format!("{path}: {reason}"),
        }
    }

    fn result(&self) -> String {
        let message: String = self.message.chars().take(MESSAGE_MAX_CHARS).collect();
        let error = Object::new()
            .number("errno", self.errno)
            .string("message", &message)
            .end();
        Object::new().json("error", &error).end()
    }
}

impl From<OverCredit> for Trouble {
    fn from(_: OverCredit) -> Self {
        Self::own("more was sent than there was credit for")
    }
}
