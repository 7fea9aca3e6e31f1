//! Templates: from a description to a published generation.
//!
//! ```text
//!  reserve -> boot -> warm up -> pause, save -> verify -> publish
//!     |________|_________|____________|___________|  a failure or a dropped future: nothing is left
//! ```
//!
//! What always holds:
//! - A generation's directory without a valid `manifest.json` does not exist: the manifest is written last, by
//!   rename, and what has none is removed at the next start.
//! - `current` names a generation that was verified. It changes by one rename.
//! - After its save nothing can write to `memory`: as root it belongs to root with mode 0440 and the hypervisor's
//!   group. Only a template's own boot ever maps it shared.
//! - Only a machine that this pipeline booted becomes a generation.
//!
//! Files: `store.rs` is the layout on disk, `manifest.rs` what a generation says of itself, `stale.rs` compares it
//! with what is wanted, `build.rs` is the pipeline, `verify.rs` its proof, `find.rs` takes up what is on disk, `forget.rs` removes a template.

mod build;
mod error;
mod find;
mod forget;
mod generation;
mod manifest;
mod progress;
mod reserve;
mod stale;
mod store;
mod verify;

pub(crate) use build::build;
pub use error::BuildError;
pub(crate) use error::failure as command_failure;
pub(crate) use find::find;
pub use find::{FindError, Found};
pub use forget::ForgetError;
pub(crate) use forget::forget;
pub use generation::Generation;
pub use manifest::{CanaryReport, FileSeal, Files, Manifest, Recipe, VerifyReport};
pub use progress::{BuildProgress, BuildStep};
pub use reserve::RoomError;
pub(crate) use reserve::check_room;
pub use stale::StaleField;
pub(crate) use store::{GenerationDir, Store};
