//! A service over a scripted factory, and requests to it.

mod fake;
mod harness;
mod mint;
mod processes;
mod reply;
mod streams;
pub(crate) mod terminal;
pub(crate) mod waiting;
pub(crate) mod websocket;

pub(crate) use fake::FakeFactory;
pub(crate) use harness::{Harness, own_peer, plan, request};
pub(crate) use reply::Reply;
pub(crate) use streams::{SOON, names_in};
