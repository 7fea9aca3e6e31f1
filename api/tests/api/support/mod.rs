//! A service over a scripted factory, and requests to it.

mod fake;
mod harness;
mod reply;

pub(crate) use fake::FakeFactory;
pub(crate) use harness::{Harness, plan, request};
pub(crate) use reply::Reply;
