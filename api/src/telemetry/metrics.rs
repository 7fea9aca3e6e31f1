//! Events as they happen: histograms and counters.
//!
//! The recorder is a value and not the process's global one: two services in one process (tests) do not mix.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_histogram, histogram, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use vmint_cache::{Source, StartPath, Telemetry};
use vmint_factory::{Phase, Phases};

use super::http_seconds::{HttpRequest, HttpSeconds};
use super::names;

/// The phase that the first command of a sandbox adds to those of its start.
const FIRST_EXEC: &str = "first_exec";
/// `source` of a checkout that gave no sandbox.
const NO_SOURCE: &str = "none";

/// The histograms and counters of one service.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    http: HttpSeconds,
}

impl Metrics {
    /// The metrics of a service with these templates: what can be known to be zero is there from the start.
    #[must_use]
    pub fn new<'a>(templates: impl IntoIterator<Item = &'a str>) -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&names::BUCKETS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        let metrics = Self {
            recorder,
            handle,
            http: HttpSeconds::default(),
        };
        metrics.record(|| {
            names::HISTOGRAMS
                .into_iter()
                .for_each(|(name, help)| describe_histogram!(name, help));
            names::COUNTERS
                .into_iter()
                .for_each(|(name, help)| describe_counter!(name, help));
        });
        templates
            .into_iter()
            .for_each(|template| metrics.start_at_zero(template));
        metrics
    }

    /// Series that exist before anything happened, so that a rate over them has a beginning.
    pub fn start_at_zero(&self, template: &str) {
        self.record(|| {
            for source in [Source::Pool, Source::Clone] {
                counter!(names::CHECKOUTS_TOTAL, "template" => template.to_owned(), "source" => source.as_str(), "outcome" => "ok")
                    .absolute(0);
            }
            for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Total) {
                counter!(names::CLONE_FAILURES_TOTAL, "template" => template.to_owned(), "phase" => phase.as_str())
                    .absolute(0);
            }
        });
    }

    fn record<T>(&self, f: impl FnOnce() -> T) -> T {
        with_local_recorder(&self.recorder, f)
    }

    /// An HTTP request was answered.
    pub fn http(&self, request: HttpRequest<'_>) {
        self.record(|| self.http.record(request));
    }

    /// Everything recorded so far, as Prometheus reads it.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sums up the samples that came since the last time, so that they do not pile up while nobody scrapes.
    pub fn sum_up(&self) {
        self.handle.run_upkeep();
    }
}

impl Telemetry for Metrics {
    fn checkout(
        &self,
        template: &str,
        source: Option<Source>,
        outcome: &'static str,
        took: Duration,
    ) {
        let source = source.map_or(NO_SOURCE, Source::as_str);
        self.record(|| {
            let template = template.to_owned();
            histogram!(names::CHECKOUT_SECONDS, "template" => template.clone(), "source" => source, "outcome" => outcome)
                .record(took);
            counter!(names::CHECKOUTS_TOTAL, "template" => template, "source" => source, "outcome" => outcome)
                .increment(1);
        });
    }

    fn startup(&self, template: &str, path: StartPath, phases: &Phases) {
        for phase in Phase::ALL {
            self.startup_phase(template, path, phase.as_str(), phases.get(phase));
        }
    }

    fn first_exec(&self, template: &str, path: StartPath, took: Duration) {
        self.startup_phase(template, path, FIRST_EXEC, took);
    }

    fn exec(&self, template: &str, outcome: &'static str, took: Duration) {
        self.record(|| {
            histogram!(names::EXEC_SECONDS, "template" => template.to_owned(), "outcome" => outcome).record(took);
        });
    }

    fn clone_failed(&self, template: &str, phase: Phase) {
        self.record(|| {
            counter!(names::CLONE_FAILURES_TOTAL, "template" => template.to_owned(), "phase" => phase.as_str())
                .increment(1);
        });
    }

    fn build(&self, template: &str, outcome: &'static str, took: Duration) {
        self.record(|| {
            histogram!(names::TEMPLATE_BUILD_SECONDS, "template" => template.to_owned(), "outcome" => outcome)
                .record(took);
        });
    }
}

impl Metrics {
    fn startup_phase(&self, template: &str, path: StartPath, phase: &'static str, took: Duration) {
        self.record(|| {
            histogram!(
                names::STARTUP_PHASE_SECONDS,
                "template" => template.to_owned(), "path" => path.as_str(), "phase" => phase
            )
            .record(took);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_series_with_the_contracts_labels() {
        let metrics = Metrics::new(["default"]);
        metrics.checkout(
            "default",
            Some(Source::Pool),
            "ok",
            Duration::from_micros(80),
        );
        metrics.checkout("default", None, "pool_empty", Duration::from_secs(5));
        metrics.first_exec("default", StartPath::Clone, Duration::from_millis(100));
        let text = metrics.render();
        for line in [
            r#"vmint_checkouts_total{template="default",source="pool",outcome="ok"} 1"#,
            r#"vmint_checkouts_total{template="default",source="clone",outcome="ok"} 0"#,
            r#"vmint_checkouts_total{template="default",source="none",outcome="pool_empty"} 1"#,
            r#"vmint_clone_failures_total{template="default",phase="load"} 0"#,
            r#"vmint_checkout_seconds_bucket{template="default",source="pool",outcome="ok",le="0.0001"} 1"#,
            r#"vmint_checkout_seconds_bucket{template="default",source="pool",outcome="ok",le="0.00005"} 0"#,
            r#"vmint_startup_phase_seconds_count{template="default",path="clone",phase="first_exec"} 1"#,
            "# HELP vmint_checkouts_total Checkouts that ended",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn what_is_summed_up_is_not_lost() {
        let metrics = Metrics::new([]);
        metrics.exec("default", "ok", Duration::from_millis(1));
        metrics.sum_up();
        metrics.exec("default", "ok", Duration::from_millis(1));
        assert!(
            metrics
                .render()
                .contains(r#"vmint_exec_seconds_count{template="default",outcome="ok"} 2"#)
        );
    }
}
