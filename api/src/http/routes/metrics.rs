//! Metrics for Prometheus.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use crate::http::code::Code;
use crate::http::problem::Problem;
use crate::http::service::Service;
use crate::telemetry::render_levels;

/// The text format of Prometheus.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain"))
)]
pub(in crate::http) async fn metrics(State(service): State<Service>) -> Result<Response, Problem> {
    // The process's own figures are read from /proc, and the generations' files are looked at.
    let asked = service.clone();
    let render = move || {
        let cache = service.cache();
        let (pools, templates) = (cache.pool_levels(), cache.templates());
        let levels = render_levels(&pools, &templates, &cache.memory(), cache.memory_level());
        service.metrics().render() + &levels
    };
    let text = asked
        .scrapes()
        .text(render)
        .await
        .map_err(|_| Problem::new(Code::Internal, "the metrics could not be read"))?;
    Ok(([(CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response())
}
