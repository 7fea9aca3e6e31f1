//! The connection to a guest's agent (`docs/agent-protocol.md`).
//!
//! ```text
//!  ../*.rs            what is asked of the guest: commands of control, streams
//!       |
//!  stream.rs          a stream: pieces in, pieces out; dropped, it is cancelled in the guest
//!       |
//!  mux.rs             whose turn it is to be written (pure, behind a lock)
//!       |               control.rs  requests, and who waits for which reply
//!       |               slot.rs     one stream: its credit, what is to be written of it
//!       |               inbox.rs    what has come of it and was not taken
//!  actor.rs           the actor that owns the socket; dial.rs makes the connection
//! ```
//!
//! What always holds:
//! - One actor owns the socket, and reads it always: a stream that is not taken from fills its own window and stops
//!   there, and no other waits for it. What was taken is what the guest may send again, so a slow taker slows the
//!   guest down, and a window for each channel is all that ever piles up.
//! - Requests are written first, then everything else that is short, then data: there each stream in turn says one
//!   frame. What is given at once goes out with one write.
//! - The guest is not trusted. Frames and messages are bounded, streams and replies that are not known are passed over,
//!   and a guest that sends more than it may, or what is no frame, loses the connection.
//! - When the connection or the agent is gone, every request and every stream ends with the reason at once, after what
//!   had come before. The next use dials again; the agent then ends what belonged to the connection before.
//! - A stream that is dropped says `CANCEL`. Its number stays taken until the guest has answered.

mod actor;
mod control;
mod dial;
mod heard;
mod inbox;
mod mux;
#[cfg(test)]
mod mux_tests;
mod slot;
mod stream;

pub(in crate::guest) use actor::Link;
pub(crate) use heard::Heard;
pub(in crate::guest) use mux::{Incoming, Opening};
pub(in crate::guest) use stream::Stream;
