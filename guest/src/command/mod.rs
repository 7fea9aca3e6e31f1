//! Starting a program and taking what it writes: what `helper run` and the agent have in common.

mod environment;
mod relay;
mod spawn;
mod user;

pub(crate) use environment::Environment;
pub(crate) use relay::{Buffer, Relay};
pub(crate) use spawn::{Program, SpawnError, Streams};
