//! Templates: each has a current generation, and somebody who sees to it.
//!
//! ```text
//!  keeper.rs    finds, builds, publishes, and tries again     status.rs    what is known of a template, and what is to be done
//!  errands.rs   ... goes back                                 snapshot.rs  ... at one moment
//!  looks.rs     ... looks whether anything has changed        wanted.rs    ... what is wanted of it
//!                                                             last_roll.rs ... and of its pool's last roll
//!                                                             builds.rs    the history of builds
//! ```

mod builds;
mod errands;
mod keeper;
mod last_roll;
mod looks;
mod snapshot;
mod status;
mod wanted;

pub(crate) use builds::Builds;
pub(crate) use keeper::keep;
pub(crate) use snapshot::Snapshot;
pub(crate) use status::{Status, Statuses};
