//! What is said to the guest, over the agent's channel.
//!
//! Two agents are known (`docs/agent-protocol.md`): our own, which does what we need in place, and stock `qemu-ga`,
//! where a small static program in the guest, the *helper*, has to be started for it:
//!
//! ```text
//!               vmint-agent        qemu-ga
//!  exec.rs      vmint-exec         helper run       environment, process group, deadline, bounded output
//!  bind.rs      vmint-bind         (host name only) host name, environment and files of whoever has it now
//!  identity.rs  vmint-identity     helper identity  clock, names, entropy, the proof that the kernel reseeded
//!  stream/      the stream port     -                what is long or lively: terminals, files
//!  agent.rs     the commands that both have; which of the two it is
//!     |
//!  wire::Link   one actor owns the socket
//! ```
//!
//! Nothing here trusts the guest: every reply is bounded in size and time, and what does not parse is an error.

mod agent;
#[cfg(test)]
mod agent_tests;
mod attached;
mod bind;
mod cancel;
mod clock_reading;
mod error;
mod exec;
mod exec_report;
mod helper;
mod identity;
mod lively;
mod online;
mod process;
mod stream;
mod warm;

/// Why something is not possible where the guest has the stock agent.
pub(crate) const STOCK_AGENT: &str =
    "the guest's agent is the stock qemu-ga; use vmint-agent (docs/guest.md)";

pub(crate) use agent::Agent;
pub use agent::AgentKind;
pub use error::GuestError;
pub use exec::{ExecError, ExecOutcome, ExecRequest, PartialOutput};
pub use identity::{Identity, IdentityDigest};
pub(crate) use identity::{IdentityOrder, IdentityProof};
pub use lively::{
    BindError, Binding, BoundFile, ExecStream, FileError, FileOwner, FilePiece, FileReader,
    FileWriter, StreamEnd, StreamInput, StreamOutput, StreamRequest, WindowSize, WriteOptions,
};
pub use process::{EndedBy, KeptOutput, Process, ProcessControl, ProcessError, ProcessOrder};
pub(crate) use stream::StreamLink;
