//! What is said to the guest, over its agent's port (`docs/agent-protocol.md`).
//!
//! ```text
//!  identity.rs  bind.rs         what a clone becomes: clock, names, entropy; host name, environment, files
//!  online.rs    attached.rs     what was plugged into it
//!  exec.rs      command.rs      commands: collected, and with their streams open
//!  process.rs   file.rs         processes that no connection ends; files
//!  agent.rs     error.rs        questions; how they fail
//!     |
//!  link/                        the one connection: requests and streams
//! ```
//!
//! Nothing here trusts the guest: every reply is bounded in size and time, and what does not parse is an error.

mod agent;
mod attached;
mod bind;
mod clock_reading;
mod command;
mod error;
mod exec;
mod file;
mod identity;
mod link;
mod lively;
mod online;
mod process;
#[cfg(test)]
mod tests;
mod warm;

pub(crate) use agent::Agent;
pub use error::{GuestError, OfGuest};
pub use exec::{ExecError, ExecOutcome, ExecRequest, PartialOutput};
pub use identity::{Identity, IdentityDigest};
pub(crate) use identity::{IdentityOrder, IdentityProof};
pub(crate) use link::Heard;
pub use lively::{
    BindError, Binding, BoundFile, ExecStream, FileError, FileOwner, FilePiece, FileReader,
    FileWriter, StreamEnd, StreamInput, StreamOutput, StreamRequest, WindowSize, WriteOptions,
};
pub use process::{EndedBy, Process, ProcessControl, ProcessError, ProcessOrder};
