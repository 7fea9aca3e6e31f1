//! JSON lines over a Unix socket: what the monitor and the guest agent have in common.
//!
//! ```text
//!   Link (any number of handles) --requests--> actor --lines--> socket
//!                                                |
//!                                                +--events--> a callback that does not block
//! ```
//!
//! What always holds:
//! - One actor owns the socket. Requests go out one at a time and replies come back in order.
//! - A command in flight is never dropped: when its caller goes away its reply is read all the same; when its
//!   deadline passes the link is dead, because nobody could tell whose reply comes next.
//! - A line is bounded. Unknown events and fields are passed over.
//! - When the link is dead every caller is told why, at once, and for ever.

mod call;
mod line;
mod link;

pub(crate) use call::Call;
pub(crate) use link::{Event, Link, LinkSettings};
pub use link::LinkError;
