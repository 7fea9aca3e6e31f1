//! Sandboxes: checkout, list, show, renew, release.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;
use vmint_cache::{Caller, SocketOwner};

use super::checkout::{CheckoutBody, parse_ttl};
use super::unknown_sandbox;
use crate::http::body::{Json, Payload};
use crate::http::failure::Failure;
use crate::http::openapi;
use crate::http::origin::Peer;
use crate::http::params::{Name, NoParams, Params};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::view::{Sandbox, SandboxList};

/// Reserved: the same key would give the same sandbox again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A new lease, counted from now.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Renewal {
    /// Seconds from now; 0 = until released, where the service has no longest lease.
    #[schema(example = 300)]
    ttl_s: f64,
}

impl Payload for Renewal {}

/// Leased sandboxes.
#[utoipa::path(
    get, path = "/v1/sandboxes", operation_id = "list_sandboxes", tag = "sandboxes",
    params(("template" = Option<String>, Query, description = "Only those of this template")),
    responses((status = 200, body = SandboxList), openapi::Invalid, openapi::NotPossible)
)]
pub(in crate::http) async fn list(
    State(service): State<Service>,
    params: Params,
) -> Result<axum::Json<SandboxList>, Problem> {
    if params.any_with_prefix("metadata.") {
        return Err(Problem::not_yet("filtering by metadata"));
    }
    params.only(&["template"])?;
    let sandboxes = service
        .cache()
        .sandboxes(params.get("template"))
        .into_iter()
        .map(Sandbox::from)
        .collect();
    Ok(axum::Json(SandboxList { sandboxes }))
}

/// Leases a sandbox: a ready one out of the pool, or one that is made meanwhile.
#[utoipa::path(
    post, path = "/v1/sandboxes", operation_id = "checkout_sandbox", tag = "sandboxes",
    request_body(content = Option<CheckoutBody>, description = "Every field is optional, and so is the body"),
    responses(
        (status = 201, body = Sandbox, headers(("location" = String, description = "The sandbox"))),
        openapi::Invalid, openapi::UnknownTemplate, openapi::TooLarge, openapi::NotJson, openapi::NotPossible,
        openapi::QueueFull, openapi::GuestFailed, openapi::NoSandbox
    )
)]
pub(in crate::http) async fn checkout(
    State(service): State<Service>,
    _: NoParams,
    peer: Option<Extension<Peer>>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    Json(body): Json<CheckoutBody>,
) -> Result<Response, Problem> {
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Problem::not_yet("the Idempotency-Key header"));
    }
    let mut request = body.into_request(&service, caller.map(|Extension(caller)| caller))?;
    request.owner = peer.map(|Extension(Peer { uid, gid })| SocketOwner { uid, gid });
    // Until the answer is made the sandbox belongs to this future: a client that hangs up gives it back.
    let lease = service
        .cache()
        .checkout(request)
        .await
        .map_err(Failure::from)?;
    let location = format!("/v1/sandboxes/{}", lease.view().id);
    let sandbox = Sandbox::from(lease.view().clone());
    let response = (
        StatusCode::CREATED,
        [(LOCATION, location)],
        axum::Json(sandbox),
    )
        .into_response();
    let _ = lease.commit();
    Ok(response)
}

/// One leased sandbox.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}", operation_id = "show_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    responses((status = 200, body = Sandbox), openapi::UnknownSandbox)
)]
pub(in crate::http) async fn show(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
) -> Result<axum::Json<Sandbox>, Problem> {
    let view = service
        .cache()
        .sandbox(&id)
        .ok_or_else(|| unknown_sandbox(&id))?;
    Ok(axum::Json(Sandbox::from(view)))
}

/// Sets the lease anew, counted from now.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/renew", operation_id = "renew_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = Renewal,
    responses(
        (status = 200, body = Sandbox),
        openapi::Invalid, openapi::UnknownSandbox, openapi::TooLarge, openapi::NotJson, openapi::NotPossible
    )
)]
pub(in crate::http) async fn renew(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
    Json(renewal): Json<Renewal>,
) -> Result<axum::Json<Sandbox>, Problem> {
    let ttl = parse_ttl(renewal.ttl_s)?;
    let view = service
        .cache()
        .renew(&id, ttl)
        .await
        .map_err(Failure::from)?;
    Ok(axum::Json(Sandbox::from(view)))
}

/// Ends a sandbox. Answers once its process is gone.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}", operation_id = "release_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    responses((status = 204, description = "It is gone"), openapi::UnknownSandbox)
)]
pub(in crate::http) async fn release(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
) -> Result<StatusCode, Problem> {
    service.cache().release(&id).await.map_err(Failure::from)?;
    Ok(StatusCode::NO_CONTENT)
}
