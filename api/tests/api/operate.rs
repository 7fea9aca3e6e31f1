//! What an operator does to a service that works: rolls back, drains, looks what is stale.

use std::sync::atomic::Ordering;

use http::Method;
use serde_json::json;
use vmint_cache::{OnStale, TemplatePlan};

use crate::support::{FakeFactory, Harness, plan};

const REBUILD: &str = "/v1/templates/default/rebuild?wait=true";
const ROLLBACK: &str = "/v1/templates/default/rollback";

async fn rolled(harness: &Harness) {
    harness
        .until("the pool has rolled", || {
            let pool = harness.cache.pool("default").unwrap();
            pool.roll.is_none() && pool.updated == 2
        })
        .await;
}

#[tokio::test]
async fn a_template_is_rolled_back_where_there_is_an_earlier_generation() {
    let harness = Harness::start().await;
    let first = harness.get("/v1/templates/default").await.ok(200)["current"].clone();
    harness
        .call(Method::POST, ROLLBACK)
        .await
        .problem(409, "conflict");
    let build = harness.call(Method::POST, REBUILD).await.ok(200);
    assert_ne!(build["generation"], first);
    let template = harness.call(Method::POST, ROLLBACK).await.ok(200);
    assert_eq!(template["current"], first);
    assert_eq!(template["generations"][0]["generation"], first);
    rolled(&harness).await;
    harness.factory.builds.send_replace(false);
    harness
        .call(Method::POST, "/v1/templates/default/rebuild")
        .await
        .ok(202);
    let detail = harness.call(Method::POST, ROLLBACK).await;
    assert!(detail.problem(409, "conflict").contains("runs"));
    harness
        .call(Method::POST, "/v1/templates/nope/rollback")
        .await
        .problem(404, "unknown_template");
    harness
        .call(Method::POST, "/v1/templates/default/rollback?to=x")
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn a_pool_shows_its_way_to_a_new_generation() {
    let harness = Harness::start().await;
    let before = harness.get("/v1/pools/default").await.ok(200);
    assert_eq!(
        (&before["updated"], &before["roll"], &before["draining"]),
        (&json!(2), &json!(null), &json!(false))
    );
    let old = harness.get("/v1/templates/default").await.ok(200)["current"].clone();
    harness.factory.launches.send_replace(false);
    let build = harness.call(Method::POST, REBUILD).await.ok(200);
    let pool = harness.get("/v1/pools/default").await.ok(200);
    let roll = &pool["roll"];
    assert_eq!(
        (&roll["from"], &roll["to"], &roll["updated"], &roll["ready"]),
        (&old, &build["generation"], &json!(0), &json!(2))
    );
    assert!(roll["deadline_s"].as_f64().unwrap() <= 60.0, "{roll}");
    harness.factory.launches.send_replace(true);
    rolled(&harness).await;
}

#[tokio::test]
async fn a_drained_pool_refuses_checkouts_until_it_is_resumed() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    let pool = harness.call(Method::POST, "/v1/pools/default/drain").await;
    let pool = pool.ok(200);
    assert_eq!(
        (&pool["draining"], &pool["ready"], &pool["leased"]),
        (&json!(true), &json!(0), &json!(1))
    );
    let refused = harness.call(Method::POST, "/v1/sandboxes").await;
    assert_eq!(refused.header("retry-after"), "30");
    refused.problem(503, "draining");
    let readiness = harness.get("/readyz").await;
    assert_eq!(readiness.status, 503);
    assert_eq!(
        readiness.json()["reasons"],
        json!(["pool default: it is drained"])
    );
    harness.get(&format!("/v1/sandboxes/{id}")).await.ok(200);
    let on = harness.call(Method::POST, "/v1/pools/default/resume").await;
    assert_eq!(on.ok(200)["draining"], false);
    harness.until_ready().await;
    for path in ["/v1/pools/nope/drain", "/v1/pools/nope/resume"] {
        harness
            .call(Method::POST, path)
            .await
            .problem(404, "unknown_template");
    }
}

#[tokio::test]
async fn the_service_drains_goes_on_and_ends_where_that_was_asked_for() {
    let harness = Harness::start().await;
    let none = harness.get("/v1/drain").await.ok(200);
    assert_eq!(
        (&none["draining"], &none["drained"]),
        (&json!(false), &json!(false))
    );
    let id = harness.checkout().await;
    let drain = harness.call(Method::POST, "/v1/drain").await.ok(200);
    assert_eq!(
        (
            &drain["draining"],
            &drain["drained"],
            &drain["leased"],
            &drain["exit"]
        ),
        (&json!(true), &json!(false), &json!(1), &json!(false))
    );
    harness
        .call(Method::POST, "/v1/sandboxes")
        .await
        .problem(503, "draining");
    assert_eq!(
        harness.get("/readyz").await.json()["reasons"],
        json!(["the service is being drained"])
    );
    let on = harness.call(Method::POST, "/v1/resume").await.ok(200);
    assert_eq!(on["draining"], false);
    harness.until_ready().await;

    let exit = harness.post("/v1/drain", json!({"exit": true})).await;
    assert_eq!(exit.ok(200)["exit"], true);
    harness
        .call(Method::POST, "/v1/resume")
        .await
        .problem(409, "conflict");
    harness
        .call(Method::DELETE, &format!("/v1/sandboxes/{id}"))
        .await;
    harness.cache.drained_to_exit().await;
    assert_eq!(harness.get("/v1/drain").await.ok(200)["drained"], true);
}

#[tokio::test]
async fn a_drain_is_asked_for_in_either_way_and_no_other() {
    let harness = Harness::start().await;
    for (path, body) in [
        ("/v1/drain", json!({"exit": "yes"})),
        ("/v1/drain", json!({"quit": true})),
        ("/v1/drain?exit=maybe", json!({})),
        ("/v1/drain?wait=true", json!({})),
    ] {
        harness
            .post(path, body)
            .await
            .problem(400, "invalid_request");
    }
    assert!(!harness.cache.draining().draining);
    let exit = harness.call(Method::POST, "/v1/drain?exit=true").await;
    assert_eq!(exit.ok(200)["exit"], true);
}

#[tokio::test(start_paused = true)]
async fn a_stale_template_says_so_and_is_refused_where_it_must_be() {
    let plan = TemplatePlan {
        on_stale: OnStale::Refuse,
        ..plan()
    };
    let harness = Harness::start_with(FakeFactory::new(), vec![plan]);
    harness.until_ready().await;
    harness.factory.is_stale.store(true, Ordering::SeqCst);
    harness
        .until("it is noticed", || {
            harness.cache.template("default").unwrap().stale
        })
        .await;
    let template = harness.get("/v1/templates/default").await.ok(200);
    assert_eq!(
        template["stale_fields"],
        json!([{"field": "kernel", "built_with": "blake3:aa", "now": "blake3:bb"}])
    );
    let refused = harness.call(Method::POST, "/v1/sandboxes").await;
    assert!(!refused.header("retry-after").is_empty());
    let detail = refused.problem(503, "template_unavailable");
    assert!(detail.contains("kernel: blake3:aa was"), "{detail}");
    let metrics = harness.get("/metrics").await;
    assert!(
        metrics
            .text()
            .contains(r#"vmint_template_stale{template="default"} 1"#)
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_compared_is_shown_and_is_not_stale() {
    let plan = TemplatePlan {
        on_stale: OnStale::Refuse,
        ..plan()
    };
    let harness = Harness::start_with(FakeFactory::new(), vec![plan]);
    harness.until_ready().await;
    harness.factory.is_unverified.store(true, Ordering::SeqCst);
    harness
        .until("it is noticed", || {
            let template = harness.cache.template("default").unwrap();
            !template.unverified_fields.is_empty()
        })
        .await;
    let template = harness.get("/v1/templates/default").await.ok(200);
    assert_eq!(
        template["unverified_fields"],
        json!([{"field": "qemu_digest", "reason": "/usr/bin/qemu cannot be read: gone"}])
    );
    let stale = (&template["stale"], &template["stale_fields"]);
    assert_eq!(stale, (&json!(false), &json!([])));
    assert_eq!(template["last_roll"], json!(null));
    let metrics = harness.get("/metrics").await;
    let metric = r#"vmint_template_stale{template="default"} 0"#;
    assert!(metrics.text().contains(metric));
    harness.checkout().await;
}
