//! The guest's serial console.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use tokio::task::spawn_blocking;

use crate::http::code::Code;
use crate::http::failure::Failure;
use crate::http::openapi;
use crate::http::params::{Name, Params};
use crate::http::problem::Problem;
use crate::http::service::Service;

/// The newest part of what the guest wrote to its serial console.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/console", operation_id = "read_console", tag = "sandboxes",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("follow" = Option<bool>, Query, description = "Reserved: true is not possible yet")
    ),
    responses(
        (status = 200, description = "As the guest wrote it", body = String, content_type = "text/plain"),
        openapi::Invalid, openapi::UnknownSandbox, openapi::NotPossible
    )
)]
pub(in crate::http) async fn console(
    State(service): State<Service>,
    Name(id): Name,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["follow"])?;
    let follow = params.flag("follow")?;
    let bytes = spawn_blocking(move || service.cache().console(&id))
        .await
        .map_err(|_| Problem::new(Code::Internal, "the console could not be read"))?
        .map_err(Failure::from)?;
    if follow {
        return Err(Problem::not_yet("follow=true"));
    }
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response())
}
