//! The `vmint` program: configuration, HTTP, command line, telemetry, start and stop.
//!
//! The program itself is a few lines in `main.rs`; it is a library so that its tests can drive the parts. It knows
//! nothing of QMP: what virtual machines are made of is in `vmint_factory`, which of them exist in `vmint_cache`.

pub mod cli;
pub mod config;
pub mod http;
pub mod plain;
pub mod reload;
mod remote;
pub mod serve;
pub mod telemetry;
