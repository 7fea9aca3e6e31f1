//! Taking a pool or the whole service out of use, and back.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::body::{Json as Read, Payload};
use crate::http::openapi;
use crate::http::params::{Name, NoParams, Params};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::view::{Drain, Pool};

/// What comes after the drain.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct DrainRequest {
    /// Whether the service ends when nothing is left.
    #[serde(default)]
    #[schema(example = false)]
    exit: bool,
}

impl Payload for DrainRequest {
    const EMPTY: Option<fn() -> Self> = Some(Self::default);
}

/// Drains a pool: checkouts are refused, unused clones end, none are made; sandboxes live until their end.
#[utoipa::path(
    post, path = "/v1/pools/{template}/drain", tag = "pools",
    params(("template" = String, Path, description = "The template")),
    responses((status = 200, body = Pool), openapi::UnknownTemplate)
)]
pub(in crate::http) async fn drain_pool(
    State(service): State<Service>,
    Name(template): Name,
    _: NoParams,
) -> Result<Json<Pool>, Problem> {
    let view = service.cache().drain_pool(&template).await?;
    Ok(Json(Pool::from(view)))
}

/// Lets a pool go on after its drain. While the whole service drains, it goes on with that.
#[utoipa::path(
    post, path = "/v1/pools/{template}/resume", tag = "pools",
    params(("template" = String, Path, description = "The template")),
    responses((status = 200, body = Pool), openapi::UnknownTemplate, openapi::ShuttingDown)
)]
pub(in crate::http) async fn resume_pool(
    State(service): State<Service>,
    Name(template): Name,
    _: NoParams,
) -> Result<Json<Pool>, Problem> {
    let view = service.cache().resume_pool(&template).await?;
    Ok(Json(Pool::from(view)))
}

/// Drains every pool. With `exit`, in the body or as a parameter, the service ends when nothing is left.
#[utoipa::path(
    post, path = "/v1/drain", tag = "service",
    params(("exit" = Option<bool>, Query, description = "End the service when nothing is left")),
    request_body = Option<DrainRequest>,
    responses(
        (status = 200, body = Drain),
        openapi::Invalid, openapi::TooLarge, openapi::NotJson
    )
)]
pub(in crate::http) async fn drain(
    State(service): State<Service>,
    params: Params,
    Read(request, _share): Read<DrainRequest>,
) -> Result<Json<Drain>, Problem> {
    params.only(&["exit"])?;
    let exit = request.exit || params.flag("exit")?;
    Ok(Json(Drain::from(service.cache().drain(exit).await)))
}

/// How far the drain of the service is.
#[utoipa::path(get, path = "/v1/drain", operation_id = "show_drain", tag = "service", responses((status = 200, body = Drain)))]
pub(in crate::http) async fn show(State(service): State<Service>, _: NoParams) -> Json<Drain> {
    Json(Drain::from(service.cache().draining()))
}

/// Lets the service go on after its drain; pools that were drained by themselves stay so.
#[utoipa::path(
    post, path = "/v1/resume", tag = "service",
    responses((status = 200, body = Drain), openapi::Exits, openapi::ShuttingDown)
)]
pub(in crate::http) async fn resume(
    State(service): State<Service>,
    _: NoParams,
) -> Result<Json<Drain>, Problem> {
    let view = service.cache().resume().await?;
    Ok(Json(Drain::from(view)))
}
