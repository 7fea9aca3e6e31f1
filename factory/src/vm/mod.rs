//! One virtual machine: its directory, its record, its owner, its handle.
//!
//! ```text
//!            launch                                     the process has ended
//!  (nothing) ------> running, owned by a task --------> ended, directory gone
//!                       ^ end() / last handle dropped: quit, TERM, KILL, wait
//! ```
//!
//! What always holds:
//! - `<run_dir>/vm/<id>/` exists from before the process until after it: who finds no directory needs to look for no
//!   process. `vm.json` in it says whose it is (`record.rs`).
//! - One task (`owner.rs`) owns the process. Everybody else has a handle, asks it to end, and reads how it ended.
//! - A machine ends with its last handle. A half-made one ends when its future is dropped: the process is a guard,
//!   and so is the directory.

mod console;
mod dir;
mod live;
mod owner;
mod ownership;
mod record;
mod sweep;

pub use console::ConsoleFollower;
pub use live::StartError;
pub(crate) use live::{LiveVm, StartPlan};
pub use owner::VmEnd;
pub(crate) use ownership::give_sockets;
pub(crate) use record::Role;
pub use record::{LeaseRecord, RecordedState, RequestKey};
pub(crate) use sweep::sweep;
