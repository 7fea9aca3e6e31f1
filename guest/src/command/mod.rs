//! Starting a program: its words, its variables, its user.

mod environment;
mod spawn;
mod user;

pub(crate) use environment::Environment;
pub(crate) use spawn::{Program, SpawnError, Streams};
