//! JSON lines over a Unix socket: what the monitor and the guest agent have in common.
//!
//! ```text
//!   Link (any number of handles) --requests--> actor --lines--> socket
//!                                                |
//!                                                +--events--> a callback that does not block
//! ```
//!
//! What always holds:
//! - One actor owns the socket. Every request has an id of its own and its reply carries the same: replies may come
//!   in any order, and a late one is known for what it is and thrown away.
//! - A command in flight is never taken back: when its caller goes away, its reply is read all the same.
//! - A line is bounded by what the commands under way may be answered with. Unknown events and fields are passed over.
//! - When the link is dead every caller is told why, at once, and for ever.

mod call;
mod heard;
mod line;
mod link;
mod outgoing;
#[cfg(test)]
mod panic_tests;
#[cfg(test)]
mod passing_tests;
mod said;
#[cfg(test)]
mod tests;

pub(crate) use call::Call;
pub(crate) use heard::Heard;
pub use link::LinkError;
pub(crate) use link::{Link, LinkSettings, Strays};
pub(crate) use said::Event;
