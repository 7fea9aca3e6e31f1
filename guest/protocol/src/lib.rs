//! The wire protocol between vmint and the agent in its guests (`docs/agent-protocol.md`).
//!
//! One port carries everything, in [frames](frame). Stream 0 is for control: requests and their replies, JSON in
//! [messages](message). The other streams are processes and files. Both sides use what is here, so that numbers and
//! names stand once; the JSON itself is read and written by each side in its own way.
//!
//! Whoever connects says a [mark](frame::Mark) first. It tells the two sides' protocol numbers, ends all that the
//! connection before had begun, and gives each frame of this connection its *seal*: four bytes behind the payload,
//! which no frame of an earlier connection has. So a frame that was cut off when its sender died is never completed
//! by the bytes of the next connection.
//!
//! # What never changes
//! The mark: its size, its place and the meaning of its fields. It is how two versions that share nothing else find
//! that out.

pub mod frame;
pub mod message;
pub mod names;

use std::time::Duration;

/// The newest protocol, and the number that a side states as its own.
///
/// | number | what it is |
/// |---|---|
/// | 1 | JSON lines on one port and unsealed frames on another; it has no mark and is not spoken any more |
/// | 2 | this crate |
pub const PROTOCOL: u16 = 2;
/// The oldest protocol that is still spoken.
pub const PROTOCOL_OLDEST: u16 = 2;

/// The virtio port's name, as the hypervisor announces it.
pub const PORT: &str = "vmint.agent.0";

/// Streams that are open at once, control not counted.
pub const STREAMS_MAX: usize = 256;
/// Processes that run at once, those of an exec among them.
pub const PROCESSES_MAX: usize = 64;
/// Ended processes that are still listed.
pub const ENDED_MAX: usize = 64;
/// Of each of a process's output streams, the newest bytes that are kept.
pub const KEPT_MAX_BYTES: usize = 1 << 20;
/// Kept output of all processes of a guest together.
pub const KEPT_ALL_MAX_BYTES: usize = 16 << 20;

/// A killed process is gone in moments, unless it hangs in the kernel, or a thousand others are to be killed with it.
/// After this long the guest gives up on it, and ends the stream of an exec. The host waits for longer than that: a
/// command whose end it gave up first would lose its output.
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What a side may send of a channel before the other side has given credit.
pub const WINDOW_BYTES: u32 = 256 * 1024;

/// The channels of a stream.
pub mod channel {
    /// Towards the guest: a process's standard input, or a file's content.
    pub const INPUT: u8 = 0;
    /// From the guest: standard output, or a file's content.
    pub const OUTPUT: u8 = 1;
    /// From the guest: standard error, or what is known of a file.
    pub const ERROR: u8 = 2;
}

/// The protocol that two sides speak with each other, or nothing when they have none in common.
///
/// ```
/// use vmint_guest_protocol::common;
/// assert_eq!(common((3, 2), (2, 2)), Some(2));
/// assert_eq!(common((3, 3), (2, 2)), None);
/// ```
#[must_use]
pub fn common(
    (newest, oldest): (u16, u16),
    (their_newest, their_oldest): (u16, u16),
) -> Option<u16> {
    let number = newest.min(their_newest);
    (number >= oldest && number >= their_oldest).then_some(number)
}
