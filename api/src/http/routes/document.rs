//! The OpenAPI document.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

use crate::http::router::openapi_document;

/// It depends on nothing but the code.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    openapi_document()
        .to_json()
        .expect("the document is JSON: a test makes it")
        .into()
});

/// This document, made from the code.
#[utoipa::path(
    get, path = "/openapi.json", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(in crate::http) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}
