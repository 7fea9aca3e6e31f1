//! Whether the service works, and whether it can be given work.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::problem::KeepBody;
use crate::http::service::Service;

/// The process works.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the service can be given work.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Ready {
    /// Whether checkouts can be expected to succeed.
    ready: bool,
    /// Why not; empty when ready.
    reasons: Vec<String>,
}

/// Whether the process works.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = Health)))]
pub(in crate::http) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether every template has a generation and every pool can give a sandbox.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses((status = 200, body = Ready), (status = 503, description = "Not now; the reasons say why", body = Ready))
)]
pub(in crate::http) async fn readyz(State(service): State<Service>) -> Response {
    let readiness = service.cache().readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Ready {
        ready: readiness.ready,
        reasons: readiness.reasons,
    };
    let mut response = (status, Json(body)).into_response();
    response.extensions_mut().insert(KeepBody);
    response
}
