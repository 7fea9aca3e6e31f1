//! JSON, as much of it as the guest's programs need: objects written on one line, and a reader for one value.

mod read;
mod write;

pub(crate) use read::{Reader, Wrong};
pub(crate) use write::{Object, push_number, quoted};
