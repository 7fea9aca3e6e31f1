//! The agent against a host, over sockets, FIFOs and memory of a test's own.

mod any;
mod attach;
mod bind;
mod exec;
mod files;
mod host;
mod port;
mod processes;
mod restart;
mod terminal;
mod user;
mod waits;

use host::{Host, exec, result};
