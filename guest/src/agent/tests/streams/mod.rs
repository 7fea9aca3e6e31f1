//! The stream port, with real commands and files on the host.

mod exec;
mod files;
mod host;
mod port;
mod terminal;

use host::{Host, exec};
