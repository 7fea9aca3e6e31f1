//! Streams: what is too long or too lively for a line (`docs/agent-protocol.md`, "Streams").
//!
//! ```text
//!  exec.rs, file.rs   what a stream is for: one task each, between the caller's channels and the stream
//!       |
//!  handle.rs          a stream: pieces in, pieces out; dropped, it is cancelled in the guest
//!       |
//!  mux.rs             all streams of a connection: ids, and whose turn it is (pure, behind a lock)
//!       |               slot.rs   one stream: its credit, what it has to say
//!       |               inbox.rs  what has come of it and was not taken
//!  link.rs            the actor that owns the socket; dial.rs makes the connection
//!       |
//!  frame.rs           headers
//! ```
//!
//! What always holds:
//! - One actor owns the socket, and reads it always: a stream that nobody takes from fills its own window and stops
//!   there, and no other waits for it. What was taken is what the guest may send again, so whoever takes slowly slows
//!   the guest down, and a window for each channel is all that ever piles up.
//! - Writing takes turns: each stream that has something to say and credit for it says one frame.
//! - The guest is not trusted. Frames are bounded, streams that are not known are passed over, and a guest that sends
//!   more than it may loses the connection.
//! - When the connection or the agent is gone, every stream ends with the reason at once, after what had come before.
//!   The next use dials anew; the agent then ends whatever it still had of the streams before.
//! - A stream that is dropped says `CANCEL`. Its id stays taken until the guest has answered, and a guest that does
//!   not answer for long is dialled anew.

mod dial;
mod exec;
mod file;
mod frame;
mod handle;
mod inbox;
mod link;
mod mux;
mod slot;
#[cfg(test)]
mod tests;

pub(crate) use link::StreamLink;
