//! The HTTP API: thin handlers between the cache's operations and the JSON that users see.
//!
//! ```text
//! observe (request id, Host, who may ask, metrics, panics, errors as problem+json)
//!   └─ router ─ handler: body/params ── cache ── view
//!                          └────────────┴─ Problem
//! ```
//!
//! What always holds: an answer that is an error is a [`Problem`] of RFC 9457, whoever made it; a body has a maximum
//! and a deadline; a request that is dropped (its client hung up) gives back what it held.

mod access;
mod body;
mod bounded;
mod budget;
mod code;
mod failure;
mod host;
mod idempotency;
pub mod limits;
mod observe;
mod openapi;
mod origin;
mod params;
pub(crate) mod problem;
mod request_id;
mod router;
mod routes;
mod scrapes;
mod seat;
mod service;
mod session;
mod stopping;
mod users;
pub mod view;

pub use code::Code;
pub use origin::{Origin, Peer, Refused};
pub use problem::Problem;
pub use router::{openapi_document, router};
pub use seat::Seat;
pub use service::{Service, Terms};
pub use stopping::Stopping;
