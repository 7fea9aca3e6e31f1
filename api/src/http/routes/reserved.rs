//! Names of later versions. They are refused in clear words, so that nobody takes silence for success; what does not
//! exist is told first.

use axum::extract::State;

use super::{unknown_sandbox, unknown_template};
use crate::http::openapi;
use crate::http::params::Name;
use crate::http::problem::Problem;
use crate::http::service::Service;

/// Reserved: goes back to the generation before.
#[utoipa::path(
    post, path = "/v1/templates/{name}/rollback", operation_id = "rollback_template", tag = "reserved",
    params(("name" = String, Path, description = "The template")),
    responses(openapi::UnknownTemplate, openapi::NotPossible)
)]
pub(in crate::http) async fn rollback(State(service): State<Service>, Name(name): Name) -> Problem {
    of_template(&service, &name, "rolling a template back")
}

/// Reserved: stops refilling a pool and ends its unused clones.
#[utoipa::path(
    post, path = "/v1/pools/{template}/drain", tag = "reserved",
    params(("template" = String, Path, description = "The template")),
    responses(openapi::UnknownTemplate, openapi::NotPossible)
)]
pub(in crate::http) async fn drain_pool(
    State(service): State<Service>,
    Name(template): Name,
) -> Problem {
    of_template(&service, &template, "draining a pool")
}

/// Reserved: stops refilling every pool and refuses checkouts.
#[utoipa::path(
    post,
    path = "/v1/drain",
    tag = "reserved",
    responses(openapi::NotPossible)
)]
pub(in crate::http) async fn drain() -> Problem {
    Problem::not_yet("draining the service")
}

/// Reserved: a WebSocket for streaming and interactive commands.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/exec", operation_id = "stream_exec", tag = "reserved",
    params(("id" = String, Path, description = "The sandbox")),
    responses(openapi::UnknownSandbox, openapi::NotPossible)
)]
pub(in crate::http) async fn exec_stream(
    State(service): State<Service>,
    Name(id): Name,
) -> Problem {
    of_sandbox(&service, &id, "streaming exec")
}

/// Reserved: reads a file of the guest.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/files", tag = "reserved",
    params(("id" = String, Path, description = "The sandbox")),
    responses(openapi::UnknownSandbox, openapi::NotPossible)
)]
pub(in crate::http) async fn read_file(State(service): State<Service>, Name(id): Name) -> Problem {
    of_sandbox(&service, &id, "reading files of the guest")
}

/// Reserved: writes a file of the guest.
#[utoipa::path(
    put, path = "/v1/sandboxes/{id}/files", tag = "reserved",
    params(("id" = String, Path, description = "The sandbox")),
    responses(openapi::UnknownSandbox, openapi::NotPossible)
)]
pub(in crate::http) async fn write_file(State(service): State<Service>, Name(id): Name) -> Problem {
    of_sandbox(&service, &id, "writing files of the guest")
}

fn of_template(service: &Service, name: &str, what: &str) -> Problem {
    if service.size(name).is_some() {
        Problem::not_yet(what)
    } else {
        unknown_template(name)
    }
}

fn of_sandbox(service: &Service, id: &str, what: &str) -> Problem {
    if service.cache().sandbox(id).is_some() {
        Problem::not_yet(what)
    } else {
        unknown_sandbox(id)
    }
}
