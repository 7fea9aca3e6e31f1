//! JSON lines over a Unix socket: how the monitor is spoken to.
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
//! - A line is bounded, and what is no message ends the link. Unknown events and fields are passed over.
//! - When the link is dead every caller learns why, at once, and for ever.

mod line;
mod link;
#[cfg(test)]
mod panic_tests;
#[cfg(test)]
mod passing_tests;
mod said;
#[cfg(test)]
mod tests;

pub(crate) use link::Link;
pub use link::LinkError;
pub(crate) use said::{Event, Reply};
