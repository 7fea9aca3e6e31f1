//! The life of the service: start, serve, stop.
//!
//! ```text
//! config ─ logs ─ factory (locks, probes) ─ listeners bound ─ clones taken up ─ cache started ─ serving
//!   serving ── first SIGTERM or SIGINT ── readiness off, checkouts refused
//!           ── requests that ran have ended ── VMs ended ── listeners closed, sockets gone ── locks released
//!   a second signal at any time: VMs are killed, and the exit code is the signal's
//!   leased sandboxes go on without the service, unless it was started with `--drain-on-exit`
//! ```
//!
//! What always holds: the listeners answer from before the first template is built until after the last VM has ended,
//! so that readiness can be watched all the while; the lock of the run directory is held whenever a socket is bound.

mod backend;
mod connection;
mod diag;
mod door;
mod files;
mod listen;
mod memory;
mod patience;
mod process;
mod room;
mod server;
mod signals;
mod socket;
mod start;
mod stop;
mod upkeep;

pub use backend::BackendError;
pub(crate) use door::{NO_DIAG_HINT, probe_diag};
pub use listen::{ListenError, Listeners};
pub use process::settle_process;
pub use server::Server;
pub use start::{ServeError, serve};
