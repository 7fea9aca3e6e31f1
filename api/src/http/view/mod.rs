//! The JSON of the API: the exact names that users see, apart from the cache's own types, so that neither can change
//! the other by accident. The service writes these types, the command line reads them.

mod build;
mod config;
mod event;
mod exec;
mod file;
mod output;
mod pool;
mod process;
mod sandbox;
mod template;
mod time;

pub use build::{Build, BuildList};
pub use config::{Configuration, LastReload, Reloaded};
pub(in crate::http) use event::{Lagged, told};
pub use exec::{ExecResult, OutputSoFar};
pub(crate) use file::X_VMINT_MODE;
pub use pool::{Drain, Pool, PoolClone, PoolList, Roll};
pub use process::{Process, ProcessList};
pub use sandbox::{
    Sandbox, SandboxConfinement, SandboxDisk, SandboxList, SandboxNic, Sockets, StartupMs,
};
pub use template::{Generation, LastRoll, StaleField, Template, TemplateList, UnverifiedField};
