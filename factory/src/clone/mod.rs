//! Clones: machines restored from a generation.
//!
//! ```text
//!  check files -> spawn -> monitor -> load -> resume -> agent answers -> identity proved -> warmed -> on_clone -> ready
//!      |___________|__________|_________|________|____________|_______________|_________|_________|
//!                     a failure or a dropped future: the process is killed, nothing is left
//! ```
//!
//! What always holds: whoever gets a [`Vm`] gets a guest that has answered, with an identity that no other clone
//! has, after the restore. What is said to it from then on is in `talk.rs`.

mod adopt;
mod clock;
mod error;
mod files;
mod grow;
mod handle;
mod mint;
mod process;
mod talk;

pub use adopt::Adopted;
pub(crate) use adopt::adopt;
pub use error::{CloneError, CloneFailure};
pub use grow::GrowError;
pub use handle::Vm;
pub use mint::CloneOrder;
pub(crate) use mint::{mint, mint_canary};
