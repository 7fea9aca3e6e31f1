//! Clones: machines restored from a generation.
//!
//! ```text
//!  check files -> spawn -> monitor -> load -> resume -> agent answers -> identity proved -> warmed -> on_clone -> ready
//!      |___________|__________|_________|________|____________|_______________|_________|_________|
//!                     a failure or a dropped future: the process is killed, nothing is left
//! ```
//!
//! What always holds: whoever gets a [`Vm`] gets a guest that has answered, with an identity that no other clone
//! has, after the restore. What can be asked of it from then on is the trait
//! [`Guest`], and `talk.rs` how that is asked.

mod adopt;
mod clock;
mod error;
mod facts;
mod files;
mod grow;
mod guest;
mod handle;
mod mint;
mod talk;

pub use adopt::Adopted;
pub(crate) use adopt::adopt;
pub use error::{CloneError, CloneFailure};
pub use facts::{AgentState, CloneFacts};
pub use grow::GrowError;
pub use guest::Guest;
pub use handle::Vm;
pub use mint::CloneOrder;
pub(crate) use mint::{mint, mint_canary};
