//! The handlers, a file for each noun. Each reads its request, asks the cache, and shows what came of it.

mod archive;
pub(super) mod attach;
mod binding;
pub(super) mod builds;
mod checkout;
mod command;
pub(super) mod config;
pub(super) mod console;
mod devices;
pub(super) mod document;
pub(super) mod drain;
pub(super) mod events;
pub(super) mod exec;
pub(super) mod exec_stream;
pub(super) mod files;
pub(super) mod health;
pub(super) mod metrics;
mod mode;
pub(super) mod pools;
pub(super) mod processes;
pub(super) mod sandboxes;
mod signal;
pub(super) mod templates;
mod variables;
mod websocket;
