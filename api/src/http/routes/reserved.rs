//! Names of later versions. They are refused in clear words, so that nobody takes silence for success; what does not
//! exist is told first.

use axum::extract::State;

use super::unknown_template;
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

fn of_template(service: &Service, name: &str, what: &str) -> Problem {
    if service.size(name).is_some() {
        Problem::not_yet(what)
    } else {
        unknown_template(name)
    }
}
