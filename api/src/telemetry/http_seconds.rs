//! The histogram of HTTP answers, by method, route and status.
//!
//! A series is looked up in the recorder once, when its first answer is counted: that costs more than all else that is
//! recorded of a request. Methods, routes and statuses are few, whatever clients send, so that nothing is ever forgotten.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use metrics::{Histogram, histogram};

use super::names;

type ByRoute = HashMap<String, Vec<(&'static str, u16, Histogram)>>;

/// One answered request.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    /// The method.
    pub method: &'static str,
    /// The pattern of the route, never the path: ids are no labels.
    pub route: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// How long it took.
    pub took: Duration,
}

/// The series that were used so far.
#[derive(Default)]
pub(super) struct HttpSeconds(RwLock<ByRoute>);

impl HttpSeconds {
    /// Counts an answer. To be called where the recorder is the local one.
    pub(super) fn record(&self, request: HttpRequest<'_>) {
        // What is behind the lock is whole at any time.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = find(&known, request) {
            return series.record(request.took);
        }
        drop(known);
        let HttpRequest {
            method,
            route,
            status,
            took,
        } = request;
        let series = histogram!(names::HTTP_REQUEST_SECONDS, "method" => method, "route" => route.to_owned(), "status" => status.to_string());
        series.record(took);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another request may have been as quick: the handles are of the same series.
        if find(&known, request).is_none() {
            let of_route = known.entry(route.to_owned()).or_default();
            of_route.push((method, status, series));
        }
    }
}

fn find<'a>(known: &'a ByRoute, request: HttpRequest<'_>) -> Option<&'a Histogram> {
    let of_route = known.get(request.route)?;
    let is_it = |(method, status, _): &&(&str, u16, Histogram)| {
        (*method, *status) == (request.method, request.status)
    };
    of_route.iter().find(is_it).map(|(_, _, series)| series)
}

#[cfg(test)]
mod tests {
    use metrics::with_local_recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn each_series_has_its_own_count() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let seconds = HttpSeconds::default();
        let of = |method, route, status| HttpRequest {
            method,
            route,
            status,
            took: Duration::from_millis(1),
        };
        with_local_recorder(&recorder, || {
            for request in [
                of("GET", "/a", 200),
                of("GET", "/a", 200),
                of("POST", "/a", 200),
                of("GET", "/a", 404),
                of("GET", "/b", 200),
            ] {
                seconds.record(request);
            }
        });
        let text = recorder.handle().render();
        for (labels, count) in [
            (r#"method="GET",route="/a",status="200""#, 2),
            (r#"method="POST",route="/a",status="200""#, 1),
            (r#"method="GET",route="/a",status="404""#, 1),
            (r#"method="GET",route="/b",status="200""#, 1),
        ] {
            let line = format!(
                "{}_count{{{labels}}} {count}\n",
                names::HTTP_REQUEST_SECONDS
            );
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
