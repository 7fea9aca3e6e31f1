//! The configuration of the running service.

use axum::Json;
use axum::extract::State;

use crate::http::openapi;
use crate::http::params::NoParams;
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::view::{Configuration, Reloaded};

/// Where the configuration comes from, when it was read, and what came of the last time that it was read again.
#[utoipa::path(get, path = "/v1/config", operation_id = "show_config", tag = "service", responses((status = 200, body = Configuration)))]
pub(in crate::http) async fn show(
    State(service): State<Service>,
    _: NoParams,
) -> Json<Configuration> {
    Json(service.reloader().known().into())
}

/// Reads the file again that the service was started with: templates are added, changed and removed, and all others left
/// alone. A file with mistakes changes nothing.
#[utoipa::path(
    post, path = "/v1/config/reload", operation_id = "reload_config", tag = "service",
    responses((status = 200, body = Reloaded), openapi::BadConfiguration, openapi::ShuttingDown)
)]
pub(in crate::http) async fn reload(
    State(service): State<Service>,
    _: NoParams,
) -> Result<Json<Reloaded>, Problem> {
    let reloaded = service.reloader().reload().await?;
    Ok(Json(reloaded.into()))
}
