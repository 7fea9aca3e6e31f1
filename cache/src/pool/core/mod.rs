//! The pool's core: what to make, whom to serve, what to end. Pure: `on(now, event) -> effects`.
//!
//! Nothing in here does I/O, reads a clock, takes a lock, waits, or draws a random number that it was not seeded with.
//! So every decision of a pool can be tested by telling the core what happened, and reading what it wants done.
//!
//! ```text
//!  ids.rs      names and time           roster.rs   the living clones, and their states
//!  event.rs    events and effects       queue.rs    the waiting checkouts
//!  health.rs   can clones be made?      supply.rs   whom to serve, what to make and to end
//!  room.rs     is there memory for them?    clones.rs   what happens to single clones
//!  roll.rs     from one generation to the   drain.rs    no checkouts for a while
//!              next, and back               look.rs     what can be seen
//!  machine.rs  `on`: one event, and all     adopt.rs    clones of an earlier service
//!              that follows from it         index.rs    counts, orders and times of all clones
//!  pulse.rs    does a guest still answer?
//! ```
//!
//! What always holds:
//! - **No more than `max` clones live**, leased ones and those being ended included; a smaller `max` ends only unused ones.
//! - **No clone is granted twice** without having been returned, and none that died, was silent or was never proved.
//! - **No clone is lost**: each is ready, leased, or on its way to its end, and leaves only when its process is gone.
//! - **First come, first served**, and every waiting checkout is answered by its deadline.
//! - **No pool gets colder by a new generation**: the one before serves, and is made from, until the new one has proved itself.
//! - **After quiet time** as many clones are ready as `target` says, as far as `max` and the host's memory allow.

mod adopt;
mod clones;
mod drain;
mod event;
mod health;
mod ids;
mod index;
mod look;
mod machine;
mod pulse;
mod queue;
mod roll;
mod room;
mod roster;
mod supply;

#[cfg(test)]
mod tests;

pub(crate) use event::{Drain, Effect, EndReason, Event, Refusal, Terms};
pub(crate) use ids::{CloneKey, Epoch, Moment, Ticket};
pub(crate) use machine::{Core, Limits};
pub(crate) use pulse::SHORTEST_PACE;
pub(crate) use roll::Roll;
pub(crate) use roster::{Slot, State};
