//! One pool of clones: a pure core that decides, and one task that has it done.
//!
//! ```text
//!  handle.rs     the pool as others see it     core/        every decision, and nothing else
//!  checkout.rs   a request becomes a lease     actor.rs     the task that owns the core
//!  grant.rs      a clone on its way out        effects.rs   ... and how
//!  message.rs    what the actor is told        tasks.rs     launches, pings, ends, watches
//!  adopt.rs      clones of an earlier service  ledger.rs    what the core's numbers stand for
//!  rolling.rs    one generation to the next     alive.rs     asking guests; hypervisors that are stopped
//! ```

mod actor;
mod adopt;
mod alive;
mod checkout;
mod core;
mod effects;
mod grant;
mod handle;
mod ledger;
mod message;
mod rolling;
mod tasks;

pub(crate) use self::core::{CloneKey, Drain, SHORTEST_PACE};
pub(crate) use actor::Report;
pub(crate) use checkout::Order;
pub(crate) use grant::Grant;
pub(crate) use handle::Pool;
