//! The layer around everything: the request's id, the Host header, who may ask, the time it took, and the form of its errors.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug, error_span};
use vmint_factory::VmId;

use super::access::NO_ROUTE;
use super::body::drain;
use super::code::Code;
use super::problem::{Problem, finish};
use super::service::Service;
use super::{access, host, request_id};
use crate::telemetry::HttpRequest;

/// Runs one request. Nothing of it outlives it: dropped, it drops the handler.
pub(super) async fn observe(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let _running = service.stopping().enter();
    let id = request_id::of(&request);
    let method = method_label(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(NO_ROUTE, MatchedPath::as_str)
        .to_owned();
    let span = request_span(&service, &request, (&id, method, &route));
    let response = answer(&service, request, &route, next)
        .instrument(span.clone())
        .await;
    let mut response = finish(response, id.to_str().unwrap_or_default());
    say_to_browsers(response.headers_mut());
    let (status, took) = (response.status().as_u16(), began.elapsed());
    span.in_scope(|| debug!(status, ?took, "answered"));
    response.headers_mut().insert(request_id::X_REQUEST_ID, id);
    service.metrics().http(HttpRequest {
        method,
        route: &route,
        status,
        took,
    });
    response
}

/// The span of a request, which is there at every level: its lines have the request's id, and what its path names.
fn request_span(
    service: &Service,
    request: &Request,
    (id, method, route): (&HeaderValue, &'static str, &str),
) -> Span {
    let request_id = id.to_str().unwrap_or_default();
    let (sandbox, template) = (Empty, Empty);
    let span = error_span!("request", request_id, method, route, sandbox, template);
    // Builds have ids, too.
    let is_of_sandboxes = route.starts_with("/v1/sandboxes/");
    for (pattern, part) in route.split('/').zip(request.uri().path().split('/')) {
        match pattern {
            "{id}" if is_of_sandboxes && VmId::parse(part).is_some() => {
                span.record("sandbox", part);
            }
            "{template}" | "{name}" if service.has_template(part) => {
                span.record("template", part);
            }
            _ => {}
        }
    }
    span
}

/// The handler's answer, or that of what failed around it.
async fn answer(service: &Service, mut request: Request, route: &str, next: Next) -> Response {
    if let Err(problem) = look_at(service, &mut request, route).await {
        let (head, body) = request.into_parts();
        drain(&head.headers, body).await;
        return problem.into_response();
    }
    // Handlers share no state that a panic could leave half changed: the cache guards its own.
    // Its words are in the logs, and stay there.
    AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Problem::new(
                Code::Internal,
                "the service made a mistake; its log has more",
            )
            .into_response()
        })
}

/// What every request is looked at for, before any handler.
async fn look_at(service: &Service, request: &mut Request, route: &str) -> Result<(), Problem> {
    host::check(request, route)?;
    access::admit(service, request, route).await
}

/// A browser guesses no type, keeps no answer, and gives none to the pages of others.
fn say_to_browsers(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
}

/// Methods are labels of a metric, so that a client cannot invent them without end.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The fallback of the router: no such path.
pub(super) async fn no_such_path(request: Request) -> Problem {
    Problem::new(
        Code::NotFound,
        format!(
            "there is no {:?}; GET /openapi.json lists what there is",
            request.uri().path()
        ),
    )
}

/// The fallback of a path: no such method. The router adds `Allow`.
pub(super) async fn no_such_method(request: Request) -> Problem {
    let allowed = "the Allow header says what is allowed";
    Problem::new(
        Code::MethodNotAllowed,
        format!("{} is not allowed here; {allowed}", request.method()),
    )
}
