//! The routes, and the document that lists them: both come from the same annotations.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::Router;
use axum::middleware::from_fn_with_state;
use http::Method;
use utoipa::openapi::PathItem;
use utoipa::{Modify as _, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::observe::{no_such_method, no_such_path, observe};
use super::openapi::{Complete, Document};
use super::routes::{
    attach, builds, config, console, document, drain, events, exec, exec_stream, files, health,
    metrics, pools, processes, sandboxes, templates,
};
use super::service::Service;

/// The whole API over a service.
pub fn router(service: Service) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(service.clone(), observe))
        .with_state(service)
}

/// The OpenAPI document of [`router`].
#[must_use]
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    let (_, mut document) = documented().split_for_parts();
    Complete.modify(&mut document);
    document
}

/// Whether there is this route, and it does not take this method.
pub(super) fn lacks(route: &str, method: &Method) -> bool {
    static ROUTES: LazyLock<BTreeMap<String, PathItem>> =
        LazyLock::new(|| documented().split_for_parts().1.paths.paths);
    let Some(item) = ROUTES.get(route) else {
        return false;
    };
    let operation = match *method {
        Method::GET | Method::HEAD => &item.get,
        Method::POST => &item.post,
        Method::PUT => &item.put,
        Method::PATCH => &item.patch,
        Method::DELETE => &item.delete,
        _ => return true,
    };
    operation.is_none()
}

/// Handlers of one path and different methods stand in one `routes!`.
fn documented() -> OpenApiRouter<Service> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(document::openapi))
        .routes(routes!(templates::list))
        .routes(routes!(templates::show))
        .routes(routes!(templates::rebuild))
        .routes(routes!(templates::rollback))
        .routes(routes!(builds::list))
        .routes(routes!(builds::show))
        .routes(routes!(pools::list))
        .routes(routes!(pools::show, pools::resize))
        .routes(routes!(drain::drain_pool))
        .routes(routes!(drain::resume_pool))
        .routes(routes!(drain::show, drain::drain))
        .routes(routes!(drain::resume))
        .routes(routes!(sandboxes::list, sandboxes::checkout))
        .routes(routes!(sandboxes::show, sandboxes::release))
        .routes(routes!(sandboxes::renew))
        .routes(routes!(exec::exec, exec_stream::exec_stream))
        .routes(routes!(processes::list, processes::start))
        .routes(routes!(processes::show, processes::end))
        .routes(routes!(processes::signal))
        .routes(routes!(attach::attach))
        .routes(routes!(files::read_file, files::write_file))
        .routes(routes!(console::console))
        .routes(routes!(events::events))
        .routes(routes!(config::show))
        .routes(routes!(config::reload))
}
