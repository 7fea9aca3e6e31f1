//! The service as its clients meet it, over a scripted factory: no virtual machine is needed.
#![allow(clippy::unwrap_used)]

mod binding;
mod browsers;
mod checkout;
mod devices;
mod exec;
mod files;
mod follow;
mod install;
mod listeners;
mod logs;
mod memory;
mod metrics;
mod openapi;
mod operate;
mod own_process;
mod processes;
mod program;
mod program_cp;
mod program_exec;
mod program_json;
mod program_operate;
mod program_peer;
mod program_process;
mod program_sandbox;
mod protocol;
mod reload;
mod repeats;
mod rights;
mod sandboxes;
mod streams;
mod support;
mod templates;
