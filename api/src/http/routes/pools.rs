//! Pools.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use vmint_cache::{CloneState, PoolView, Resize};

use crate::http::body::{Json, Payload};
use crate::http::openapi;
use crate::http::params::{Name, NoParams};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::users::User;
use crate::http::view::{Pool, PoolList};

/// New sizes; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PoolChange {
    /// Warm clones to keep.
    #[schema(example = 4)]
    target: Option<u32>,
    /// Clones alive at most, leased ones included.
    #[schema(example = 16)]
    max: Option<u32>,
}

impl Payload for PoolChange {}

/// Every pool.
#[utoipa::path(get, path = "/v1/pools", operation_id = "list_pools", tag = "pools", responses((status = 200, body = PoolList)))]
pub(in crate::http) async fn list(
    State(service): State<Service>,
    user: User,
    _: NoParams,
) -> axum::Json<PoolList> {
    let views = service.cache().pools().into_iter();
    let pools = views.map(|view| shown_to(user, view, &service)).collect();
    axum::Json(PoolList { pools })
}

/// The pool of one template.
#[utoipa::path(
    get, path = "/v1/pools/{template}", operation_id = "show_pool", tag = "pools",
    params(("template" = String, Path, description = "The template")),
    responses((status = 200, body = Pool), openapi::UnknownTemplate)
)]
pub(in crate::http) async fn show(
    State(service): State<Service>,
    user: User,
    Name(template): Name,
    _: NoParams,
) -> Result<axum::Json<Pool>, Problem> {
    let view = service.cache().pool(&template)?;
    Ok(axum::Json(shown_to(user, view, &service)))
}

/// A pool as a user may see it: those who do not operate the service learn how many sandboxes others have, but not which.
fn shown_to(user: User, mut view: PoolView, service: &Service) -> Pool {
    if !user.may_operate() {
        view.clones.retain(|clone| match clone.state {
            CloneState::Launching | CloneState::Ready => true,
            CloneState::Leased => service.cache().owner_of(&clone.id) == Some(user.uid),
            CloneState::Releasing => false,
        });
    }
    Pool::from(view)
}

/// Changes the sizes of a pool, until the service is started again.
#[utoipa::path(
    patch, path = "/v1/pools/{template}", operation_id = "resize_pool", tag = "pools",
    params(("template" = String, Path, description = "The template")),
    request_body = PoolChange,
    responses(
        (status = 200, body = Pool),
        openapi::Invalid, openapi::UnknownTemplate, openapi::TooLarge, openapi::NotJson, openapi::NotPossible,
        openapi::ShuttingDown
    )
)]
pub(in crate::http) async fn resize(
    State(service): State<Service>,
    Name(template): Name,
    _: NoParams,
    Json(change, _share): Json<PoolChange>,
) -> Result<axum::Json<Pool>, Problem> {
    let change = Resize {
        target: change.target,
        max: change.max,
    };
    let view = service.cache().resize(&template, change).await?;
    Ok(axum::Json(Pool::from(view)))
}
