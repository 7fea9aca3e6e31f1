//! Clones: machines restored from a generation.
//!
//! ```text
//!  check state -> spawn -> monitor -> load -> resume -> agent answers -> identity proved -> on_clone -> ready
//!      |___________|__________|_________|________|____________|_______________|_____________|
//!                     a failure or a dropped future: the process is killed, nothing is left
//! ```
//!
//! What always holds: whoever gets a [`Vm`] gets a guest that has answered, with an identity that no other clone
//! has, after the restore.

mod adopt;
mod error;
mod handle;
mod mint;

pub use adopt::Adopted;
pub(crate) use adopt::adopt;
pub use error::{CloneError, CloneFailure};
pub use handle::Vm;
pub use mint::CloneOrder;
pub(crate) use mint::{mint, mint_canary};
