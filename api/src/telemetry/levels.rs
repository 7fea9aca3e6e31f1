//! Levels, read when somebody scrapes: pools, templates, memory, the process itself.
//!
//! They go into a recorder that lives for one scrape, so that a series ends with the thing that it is about.

use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use vmint_cache::{CloneState, MemoryLevel, PoolLevel, TemplateMemory, TemplateView};

use super::{dropped_log_lines, names};

/// The levels as Prometheus reads them. Reads `/proc` of this process: some milliseconds, blocking.
#[must_use]
pub fn render_levels(
    pools: &[PoolLevel],
    templates: &[TemplateView],
    memory: &[TemplateMemory],
    node: MemoryLevel,
) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        names::GAUGES
            .into_iter()
            .for_each(|(name, help)| describe_gauge!(name, help));
        describe_counter!(names::LOG_LINES_DROPPED, names::LOG_LINES_DROPPED_HELP);
        counter!(names::LOG_LINES_DROPPED).absolute(dropped_log_lines());
        gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
        pools.iter().for_each(set_pool);
        templates.iter().for_each(set_template);
        memory.iter().for_each(set_memory);
        set_node(node);
        let process = metrics_process::Collector::default();
        process.describe();
        process.collect();
    });
    recorder.handle().render()
}

fn set_pool(pool: &PoolLevel) {
    let template = || pool.template.clone();
    let states = [
        (CloneState::Launching, pool.launching),
        (CloneState::Ready, pool.ready),
        (CloneState::Leased, pool.leased),
        (CloneState::Releasing, pool.releasing),
    ];
    for (state, count) in states {
        gauge!(names::POOL_VMS, "template" => template(), "state" => state.as_str())
            .set(count as f64);
    }
    gauge!(names::POOL_TARGET, "template" => template()).set(pool.target);
    gauge!(names::SANDBOXES_UNRESPONSIVE, "template" => template()).set(pool.unresponsive as f64);
    gauge!(names::POOL_WAITERS, "template" => template()).set(pool.waiters as f64);
}

fn set_template(template: &TemplateView) {
    let name = || template.name.clone();
    gauge!(names::TEMPLATE_STALE, "template" => name()).set(u8::from(template.stale));
    let is_current = |generation: &str| template.current.as_deref() == Some(generation);
    if let Some(current) = template
        .generations
        .iter()
        .find(|generation| is_current(&generation.generation))
    {
        gauge!(
            names::TEMPLATE_INFO,
            "template" => name(),
            "generation" => current.generation.clone(),
            "accel" => current.accel.as_str(),
            "qemu_version" => current.qemu_version.clone()
        )
        .set(1);
        gauge!(names::TEMPLATE_BUILT, "template" => name())
            .set(current.built_at.as_millisecond() as f64 / 1e3);
    }
}

fn set_memory(memory: &TemplateMemory) {
    let template = || memory.template.clone();
    gauge!(names::TEMPLATE_MEMORY, "template" => template()).set(memory.template_bytes as f64);
    gauge!(names::CLONE_PRIVATE, "template" => template()).set(memory.clone_private_bytes as f64);
}

/// A node without a limit has no series for one.
fn set_node(memory: MemoryLevel) {
    if let Some(budget) = memory.budget_bytes {
        gauge!(names::MEMORY_BUDGET).set(budget as f64);
    }
    gauge!(names::MEMORY_ADMITTED).set(memory.admitted_bytes as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_a_pool_is_there_even_when_it_is_zero() {
        let pool = PoolLevel {
            template: "default".to_owned(),
            target: 2,
            ready: 1,
            launching: 0,
            leased: 0,
            unresponsive: 0,
            releasing: 0,
            waiters: 0,
            degraded: None,
            draining: false,
            was_filled: true,
        };
        let node = MemoryLevel {
            budget_bytes: Some(3 << 30),
            admitted_bytes: 1 << 30,
        };
        let text = render_levels(&[pool], &[], &[], node);
        for (state, count) in [
            ("launching", 0),
            ("ready", 1),
            ("leased", 0),
            ("releasing", 0),
        ] {
            let line = format!(r#"vmint_pool_vms{{template="default",state="{state}"}} {count}"#);
            assert!(text.contains(&line), "{line} is missing in:\n{text}");
        }
        assert!(
            text.contains("vmint_memory_budget_bytes 3221225472"),
            "{text}"
        );
        assert!(
            text.contains("vmint_memory_admitted_bytes 1073741824"),
            "{text}"
        );
        assert!(text.contains("vmint_log_lines_dropped_total 0"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
        assert!(text.contains(r#"vmint_build_info{version=""#), "{text}");
    }
}
