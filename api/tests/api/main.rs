//! The service as its clients meet it, over a scripted factory: no virtual machine is needed.
#![allow(clippy::unwrap_used)]

mod checkout;
mod devices;
mod exec;
mod listeners;
mod metrics;
mod openapi;
mod program;
mod protocol;
mod sandboxes;
mod support;
mod templates;
