//! One virtual machine: its directory, its record, its owner, its handle.
//!
//! ```text
//!            launch                                     the process has ended
//!  (nothing) ------> running, owned by a task --------> ended, directory gone
//!                       ^ end() / last handle dropped: quit, TERM, KILL, wait
//!
//!  running, owned --- leave(), or kill -9 of the service ---> orphan --- adopt() ---> running, owned by a task again
//! ```
//!
//! What always holds:
//! - `<run_dir>/vm/<id>/` exists from before the process until after it: who finds no directory needs to look for no
//!   process. `vm.json` in it says whose it is (`record.rs`).
//! - One task (`owner.rs`) owns the process. Everybody else has a handle, asks it to end, and reads how it ended.
//! - A service that dies ends no machine: each is in a session of its own. `orphan.rs` says which of them can be taken
//!   up again, `sweep.rs` ends the others, and `crate::guard` ends those whose lease runs out meanwhile.
//! - A directory that is removed or moved under a running machine takes its sockets and its record with it. A clone that nobody
//!   has is ended then; a sandbox lives on, its record is written again (`lost.rs`), and its console is cut as before.
//! - A machine ends with its last handle. A half-made one ends when its future is dropped: the process is a guard,
//!   and so is the directory.

mod console;
mod dir;
mod growth;
mod live;
mod lost;
mod orphan;
mod owner;
mod ownership;
mod record;
mod record_file;
mod sweep;
mod upkeep;

pub use console::ConsoleFollower;
pub(crate) use console::trim_console;
pub(crate) use dir::{CONSOLE, RUNTIME};
pub use growth::Growth;
pub use live::StartError;
pub(crate) use live::{LiveVm, StartPlan};
pub(crate) use orphan::{Orphan, process_of};
pub use owner::VmEnd;
pub(crate) use ownership::give_sockets;
#[cfg(test)]
pub(crate) use record::tests as record_tests;
pub use record::{LeaseRecord, RecordedState, RequestKey, Source};
pub(crate) use record::{Role, VmRecord};
pub(crate) use record_file::RecordFile;
pub(crate) use sweep::{Owner, examine, machines, processes_named, sweep};
