//! The service of the other tests, over their scripted factory.

#[path = "../../api/support/fake.rs"]
mod fake;
#[path = "../../api/support/harness.rs"]
mod harness;
#[path = "../../api/support/mint.rs"]
mod mint;
#[path = "../../api/support/processes.rs"]
mod processes;
#[path = "../../api/support/reply.rs"]
mod reply;
#[path = "../../api/support/streams.rs"]
mod streams;
#[path = "../../api/support/waiting.rs"]
mod waiting;

pub(crate) use fake::FakeFactory;
pub(crate) use harness::{Harness, request};
pub(crate) use reply::Reply;
