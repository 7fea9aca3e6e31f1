//! A host with little memory: what does not fit is refused with the sum.

use http::Method;
use serde_json::json;
use vmint_cache::MemoryBudget;

use crate::support::{FakeFactory, Harness, plan};

const MIB: u64 = 1 << 20;

/// A ready service with the default template, and memory for three clones of it until they are measured.
async fn small_host() -> Harness {
    let budget = MemoryBudget::of((257 + 3 * 32) * MIB * 2, 0.5);
    let harness = Harness::start_within(FakeFactory::new(), vec![plan()], Some(budget));
    harness.until_ready().await;
    harness
}

#[tokio::test]
async fn a_target_that_does_not_fit_is_refused_with_the_sum() {
    let harness = small_host().await;
    let resize = async |target| {
        let body = json!({"target": target});
        harness
            .call_with(Method::PATCH, "/v1/pools/default", body)
            .await
    };
    let detail = resize(10_000).await.problem(422, "not_possible");
    assert!(
        detail.starts_with("memory: 1 template file 257 MiB + 10000 clones to keep ")
            && detail.ends_with(" MiB > 353 MiB, 50 % of the host's 706 MiB"),
        "{detail}"
    );
    assert_eq!(resize(1).await.ok(200)["target"], 1);
}

#[tokio::test]
async fn a_sandbox_that_never_fits_is_not_possible() {
    let harness = small_host().await;
    let reply = harness
        .post("/v1/sandboxes", json!({"memory_mib": 1024}))
        .await;
    let detail = reply.problem(422, "not_possible");
    assert!(
        detail.contains("whatever else ends: memory: 1 template file 257 MiB + this clone "),
        "{detail}"
    );
    assert!(
        detail.contains("what is plugged into it 768 MiB > 353 MiB"),
        "{detail}"
    );
    assert_eq!(harness.get("/v1/pools/default").await.ok(200)["leased"], 0);
}

#[tokio::test]
async fn the_budget_and_what_is_admitted_are_metrics() {
    let harness = small_host().await;
    let reply = harness.get("/metrics").await;
    let text = reply.text();
    let budget = format!("vmint_memory_budget_bytes {}", 353 * MIB);
    assert!(text.contains(&budget), "{budget} is missing in:\n{text}");
    assert!(
        text.contains("# TYPE vmint_memory_admitted_bytes gauge"),
        "{text}"
    );
}
