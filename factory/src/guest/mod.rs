//! What is said to the guest, over the agent's channel.
//!
//! The agent is stock `qemu-ga`. What it lacks is done by a small static program in the guest, the *helper*
//! (`guest/` in this repository, `/usr/lib/vmint/helper` in the guest), which the agent starts:
//!
//! ```text
//!  exec.rs      helper run       environment, directory, process group, deadline, bounded output
//!  identity.rs  helper identity  clock, names, entropy, and the proof that the kernel reseeded
//!  agent.rs     guest-exec, guest-exec-status, guest-ping: the agent's own commands
//!     |
//!  wire::Link   one actor owns the socket
//! ```
//!
//! Nothing here trusts the guest: every reply is bounded in size and time, and what does not parse is an error.

mod agent;
mod error;
mod exec;
mod helper;
mod identity;

pub(crate) use agent::Agent;
pub use error::GuestError;
pub use exec::{ExecError, ExecOutcome, ExecRequest};
pub(crate) use identity::{IdentityOrder, IdentityProof};
pub use identity::Identity;
