//! What a checkout asks a template's status for.

use std::path::PathBuf;

use super::*;

const GENERATIONS: usize = 100;
const REPORT_BYTES: usize = 1 << 20;

fn facts() -> GenerationFacts {
    GenerationFacts {
        report: serde_json::Value::String("x".repeat(REPORT_BYTES)),
        ..GenerationFacts::for_tests()
    }
}

fn status() -> Arc<Status> {
    let spec = TemplateSpec::new(
        "default",
        PathBuf::from("/kernel"),
        PathBuf::from("/initrd"),
    );
    Status::new(spec, OnStale::Rebuild)
}

/// A status with as much in it as there may be, and more: 100 MiB.
fn large() -> Arc<Status> {
    let status = status();
    status.is_on_disk((0..GENERATIONS).map(|_| facts()).collect());
    status.build_failed(&"x".repeat(REPORT_BYTES), Duration::from_secs(60));
    let differing = (0..GENERATIONS).map(|nth| StaleField {
        field: format!("field {nth}"),
        built_with: "x".repeat(REPORT_BYTES / GENERATIONS),
        now: String::new(),
    });
    let staleness = Staleness {
        differing: differing.collect(),
        unverified: Vec::new(),
    };
    status.compares(None, staleness);
    status
}

/// The time of one snapshot.
fn takes(status: &Status) -> Duration {
    const SNAPSHOTS: u32 = 1_000;
    let begun = std::time::Instant::now();
    for _ in 0..SNAPSHOTS {
        std::hint::black_box(status.snapshot());
    }
    begun.elapsed() / SNAPSHOTS
}

/// A checkout takes one or two of them.
#[test]
fn a_snapshot_copies_nothing_of_what_is_known() {
    let (large, empty) = (large(), status());
    let (one, other) = (large.snapshot(), large.snapshot());
    assert_eq!(one.on_disk.len(), GENERATIONS);
    assert!(Arc::ptr_eq(&one.on_disk, &other.on_disk));
    assert!(Arc::ptr_eq(&one.staleness, &other.staleness));
    let words = one.last_error.zip(other.last_error);
    assert!(words.is_some_and(|(one, other)| Arc::ptr_eq(&one, &other)));
    let (of_large, of_empty) = (takes(&large), takes(&empty));
    println!("a snapshot takes {of_large:?} with 100 MiB of facts, {of_empty:?} with none");
    // A copy of these facts takes tens of milliseconds.
    assert!(of_large < Duration::from_millis(1), "{of_large:?}");
}
