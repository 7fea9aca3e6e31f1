//! A factory that does what the test says, and remembers what was done to it.

mod console;
mod disk;
mod factory;
mod generation;
mod machine;
mod mint;
mod processes;
mod script;

pub(crate) use factory::FakeFactory;
pub(crate) use machine::{Clone, NOBODY};
pub(crate) use mint::Shared;
pub(crate) use script::{Attach, Build, Launch, OnDisk};
