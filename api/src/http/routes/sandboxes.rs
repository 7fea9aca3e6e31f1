//! Sandboxes: checkout, list, show, renew, release.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tracing::Span;
use utoipa::ToSchema;
use vmint_cache::{Caller, CheckedOut, SandboxView, SocketOwner};

use super::checkout::{CheckoutBody, parse_ttl};
use crate::http::body::{Json, Payload};
use crate::http::idempotency;
use crate::http::openapi;
use crate::http::origin::Peer;
use crate::http::params::{Name, NoParams, Params};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::users::User;
use crate::http::view::{Sandbox, SandboxList};

/// Parameters of the list that name what a sandbox's metadata must have.
const METADATA: &str = "metadata.";

/// A new lease, counted from now.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Renewal {
    /// Seconds from now, fractions too; 0 = until released, where the service has no longest lease.
    #[schema(example = 300)]
    ttl_s: f64,
}

impl Payload for Renewal {}

/// Leased sandboxes of the user who asks; root sees those of every user.
#[utoipa::path(
    get, path = "/v1/sandboxes", operation_id = "list_sandboxes", tag = "sandboxes",
    params(
        ("template" = Option<String>, Query, description = "Only those of this template"),
        (
            "metadata.NAME" = Option<String>, Query,
            description = "Only those whose metadata has this value under NAME; several must all match"
        )
    ),
    responses((status = 200, body = SandboxList), openapi::Invalid)
)]
pub(in crate::http) async fn list(
    State(service): State<Service>,
    user: User,
    params: Params,
) -> Result<axum::Json<SandboxList>, Problem> {
    params.only_or(&["template"], METADATA)?;
    let wanted = params.with_prefix(METADATA);
    let matches = |view: &SandboxView| {
        let has =
            |(name, value): &(&str, &str)| view.metadata.get(*name).is_some_and(|v| v == value);
        wanted.iter().all(has)
    };
    let (cache, template) = (service.cache(), params.get("template"));
    let views = if user.may_use_all() {
        cache.sandboxes(template)
    } else {
        cache.sandboxes_of(user.uid, template)
    };
    let sandboxes = views
        .into_iter()
        .filter(matches)
        .map(Sandbox::from)
        .collect();
    Ok(axum::Json(SandboxList { sandboxes }))
}

/// Leases a sandbox: a ready one out of the pool, or one that is made meanwhile.
#[utoipa::path(
    post, path = "/v1/sandboxes", operation_id = "checkout_sandbox", tag = "sandboxes",
    params((
        "Idempotency-Key" = Option<String>, Header,
        description = "The same key with the same body gives the same answer again, while the sandbox lives and 10 minutes \
            after; 1 to 255 printable ASCII characters"
    )),
    request_body(content = Option<CheckoutBody>, description = "Every field is optional, and so is the body"),
    responses(
        (status = 201, body = Sandbox, headers(("location" = String, description = "The sandbox"))),
        openapi::Invalid, openapi::UnknownTemplate, openapi::KeyReused, openapi::TooLarge, openapi::NotJson,
        openapi::NotPossible, openapi::QueueFull, openapi::HostFailed, openapi::GuestFailed, openapi::NoSandbox
    )
)]
pub(in crate::http) async fn checkout(
    State(service): State<Service>,
    user: User,
    _: NoParams,
    peer: Option<Extension<Peer>>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    Json(body, _share): Json<CheckoutBody>,
) -> Result<Response, Problem> {
    let caller = caller.map(|Extension(caller)| caller);
    let key = idempotency::key(&headers, user.uid)?;
    let mut request = body.into_request(&service, caller, key.is_some())?;
    request.idempotency = key.map(|key| key.of(&request));
    if service.has_template(&request.template) {
        Span::current().record("template", &request.template);
    }
    request.owner_uid = user.uid;
    request.owner = peer.and_then(|Extension(Peer { uid, gid })| {
        let gid = gid?;
        Some(SocketOwner { uid, gid })
    });
    // Until the answer is made the sandbox belongs to this future: a client that hangs up gives it back.
    let checked_out = service.cache().checkout_once(request);
    match checked_out.await? {
        CheckedOut::New(lease) => {
            Span::current().record("sandbox", &lease.view().id);
            let response = created(lease.view().clone());
            let _ = lease.commit();
            Ok(response)
        }
        CheckedOut::Again(view) => Ok(created(*view)),
    }
}

fn created(view: SandboxView) -> Response {
    let location = format!("/v1/sandboxes/{}", view.id);
    let sandbox = axum::Json(Sandbox::from(view));
    (StatusCode::CREATED, [(LOCATION, location)], sandbox).into_response()
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
    let view = service.cache().sandbox(&id)?;
    Ok(axum::Json(Sandbox::from(view)))
}

/// Sets the lease anew, counted from now.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/renew", operation_id = "renew_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = Renewal,
    responses(
        (status = 200, body = Sandbox),
        openapi::Invalid, openapi::UnknownSandbox, openapi::TooLarge, openapi::NotJson, openapi::NotPossible,
        openapi::Overloaded
    )
)]
pub(in crate::http) async fn renew(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
    Json(renewal, _share): Json<Renewal>,
) -> Result<axum::Json<Sandbox>, Problem> {
    let ttl = parse_ttl(renewal.ttl_s)?;
    let view = service.cache().renew(&id, ttl).await?;
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
    service.cache().release(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
