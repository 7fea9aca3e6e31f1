//! Builds of templates.

use axum::Json;
use axum::extract::State;

use crate::http::code::Code;
use crate::http::openapi;
use crate::http::params::{Name, NoParams};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::view::{Build, BuildList};

/// Every build that is remembered.
#[utoipa::path(get, path = "/v1/builds", operation_id = "list_builds", tag = "templates", responses((status = 200, body = BuildList)))]
pub(in crate::http) async fn list(State(service): State<Service>, _: NoParams) -> Json<BuildList> {
    let builds = service
        .cache()
        .builds()
        .into_iter()
        .map(Build::from)
        .collect();
    Json(BuildList { builds })
}

/// One build.
#[utoipa::path(
    get, path = "/v1/builds/{id}", operation_id = "show_build", tag = "templates",
    params(("id" = String, Path, description = "The build")),
    responses((status = 200, body = Build), openapi::UnknownBuild)
)]
pub(in crate::http) async fn show(
    State(service): State<Service>,
    Name(id): Name,
    _: NoParams,
) -> Result<Json<Build>, Problem> {
    let unknown = || Problem::new(Code::UnknownBuild, format!("there is no build {id:?}"));
    service
        .cache()
        .build(&id)
        .map(Build::from)
        .map(Json)
        .ok_or_else(unknown)
}
