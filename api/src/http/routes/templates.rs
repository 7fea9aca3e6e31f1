//! Templates.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;

use crate::http::code::Code;
use crate::http::openapi;
use crate::http::params::{Name, NoParams, Params};
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::http::view::{Build, Template, TemplateList};

/// Every template.
#[utoipa::path(get, path = "/v1/templates", operation_id = "list_templates", tag = "templates", responses((status = 200, body = TemplateList)))]
pub(in crate::http) async fn list(
    State(service): State<Service>,
    _: NoParams,
) -> Json<TemplateList> {
    let templates = service
        .cache()
        .templates()
        .into_iter()
        .map(Template::from)
        .collect();
    Json(TemplateList { templates })
}

/// One template.
#[utoipa::path(
    get, path = "/v1/templates/{name}", operation_id = "show_template", tag = "templates",
    params(("name" = String, Path, description = "The template")),
    responses((status = 200, body = Template), openapi::UnknownTemplate)
)]
pub(in crate::http) async fn show(
    State(service): State<Service>,
    Name(name): Name,
    _: NoParams,
) -> Result<Json<Template>, Problem> {
    let view = service.cache().template(&name)?;
    Ok(Json(Template::from(view)))
}

/// Builds a new generation of a template. Its pool goes over to it when it is published.
#[utoipa::path(
    post, path = "/v1/templates/{name}/rebuild", operation_id = "rebuild_template", tag = "templates",
    params(
        ("name" = String, Path, description = "The template"),
        ("wait" = Option<bool>, Query, description = "Answer when the build has ended")
    ),
    responses(
        (status = 200, description = "With `wait=true`: the build has ended", body = Build),
        (status = 202, description = "The build runs", body = Build, headers(("location" = String, description = "The build"))),
        openapi::Invalid, openapi::UnknownTemplate, openapi::Conflict, openapi::ShuttingDown
    )
)]
pub(in crate::http) async fn rebuild(
    State(service): State<Service>,
    Name(name): Name,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["wait"])?;
    let wait = params.flag("wait")?;
    let build = service.cache().rebuild(&name)?;
    if !wait {
        let location = format!("/v1/builds/{}", build.id);
        return Ok((
            StatusCode::ACCEPTED,
            [(LOCATION, location)],
            Json(Build::from(build)),
        )
            .into_response());
    }
    let ended = tokio::select! {
        ended = service.cache().build_ended(&build.id) => ended,
        () = service.stopping().begun() => return Err(Problem::shutting_down()),
    };
    let ended = ended.ok_or_else(|| {
        Problem::new(
            Code::Internal,
            format!("build {:?} was forgotten", build.id),
        )
    })?;
    Ok(Json(Build::from(ended)).into_response())
}

/// Goes back to the generation before. The pool goes over to it as to a new one.
#[utoipa::path(
    post, path = "/v1/templates/{name}/rollback", operation_id = "rollback_template", tag = "templates",
    params(("name" = String, Path, description = "The template")),
    responses(
        (status = 200, body = Template),
        openapi::UnknownTemplate, openapi::NoWayBack, openapi::ShuttingDown
    )
)]
pub(in crate::http) async fn rollback(
    State(service): State<Service>,
    Name(name): Name,
    _: NoParams,
) -> Result<Json<Template>, Problem> {
    let view = service.cache().rollback(&name).await?;
    Ok(Json(Template::from(view)))
}
