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
//! - Several generations of a template live beside each other: the current one, the ones that are kept to go back to,
//!   and those of which clones still live. None of these loses its files (`generation.rs`, `keep.rs`).
//! - What another QEMU build, accelerator or processor has saved is never restored (`rollback.rs`).
//! - After its save nothing can write to `memory`: as root it belongs to root with mode 0440 and the hypervisor's
//!   group. Only a template's own boot ever maps it shared.
//! - Only a machine that this pipeline booted becomes a generation.
//!
//! Files: `store.rs` is the layout on disk, `manifest.rs` what a generation says of itself, `stale.rs` compares it
//! with what is wanted, `build.rs` is the pipeline, `verify.rs` its proof, `find.rs` takes up what is on disk, `check.rs`
//! says whether it is whole, `forget.rs` removes a template.

mod build;
mod check;
mod error;
mod find;
mod forget;
mod fresh;
mod generation;
mod keep;
mod list;
mod manifest;
mod progress;
mod reserve;
mod rollback;
mod stale;
mod store;
mod verify;

pub(crate) use build::build;
pub use error::BuildError;
pub(crate) use error::failure as command_failure;
pub use find::{FindError, Found};
pub(crate) use find::{TakenUp, find, take_up};
pub use forget::ForgetError;
pub(crate) use forget::{forget, forget_others};
pub use generation::Generation;
pub(crate) use generation::{GenerationFiles, Registry};
pub(crate) use keep::{drop_kept, sweep_half_built};
pub(crate) use list::list;
pub use list::{ListedGeneration, Validity};
pub use manifest::{CanaryReport, FileSeal, Files, Manifest, Recipe, VerifyReport};
pub use progress::{BuildProgress, BuildStep};
pub use reserve::RoomError;
pub(crate) use reserve::check_room;
pub use rollback::RollbackError;
pub(crate) use rollback::{Misfit, Platform, give_up, refuse_foreign, rollback};
pub(crate) use stale::RecipeNow;
pub use stale::{StaleField, Staleness, UnverifiedField};
pub(crate) use store::{GenerationDir, Owners, Store};
