//! Templates, builds, pools, health.

use std::sync::atomic::Ordering;

use http::Method;
use serde_json::json;

use crate::support::{FakeFactory, Harness, plan};

#[tokio::test]
async fn a_template_shows_its_generations() {
    let harness = Harness::start().await;
    let list = harness.get("/v1/templates").await.ok(200);
    let template = harness.get("/v1/templates/default").await.ok(200);
    assert_eq!(list["templates"][0], template);
    assert_eq!(
        (&template["name"], &template["state"]),
        (&json!("default"), &json!("ready"))
    );
    let generation = &template["generations"][0];
    assert_eq!(generation["generation"], template["current"]);
    for (field, value) in [
        ("accel", json!("tcg")),
        ("qemu_version", json!("10.0.2")),
        ("memory_mib", json!(256)),
        ("clones", json!(2)),
        (
            "phases_ms",
            json!({"total": 5000.0, "first_exec": 6000.0, "boot": 5000.0}),
        ),
        ("report", json!({"canaries": 2})),
    ] {
        assert_eq!(generation[field], value, "{field}");
    }
    assert_eq!(
        (
            &template["stale"],
            &template["stale_fields"],
            &template["build"]
        ),
        (&json!(false), &json!([]), &json!(null))
    );
    harness
        .get("/v1/templates/nope")
        .await
        .problem(404, "unknown_template");
}

#[tokio::test]
async fn a_rebuild_is_accepted_once_at_a_time() {
    let harness = Harness::start().await;
    harness.factory.builds.send_replace(false);
    let path = "/v1/templates/default/rebuild";
    let reply = harness.call(Method::POST, path).await;
    let build = reply.ok(202);
    let location = format!("/v1/builds/{}", build["id"].as_str().unwrap());
    assert_eq!(reply.header("location"), location);
    assert_eq!(
        (&build["state"], &build["template"]),
        (&json!("running"), &json!("default"))
    );
    assert_eq!(
        (&build["ended_at"], &build["error"]),
        (&json!(null), &json!(null))
    );
    harness
        .call(Method::POST, path)
        .await
        .problem(409, "conflict");
    assert_eq!(harness.get(&location).await.ok(200)["id"], build["id"]);
    assert_eq!(
        harness.get("/v1/templates/default").await.ok(200)["build"],
        build["id"]
    );

    harness.factory.builds.send_replace(true);
    let id = build["id"].as_str().unwrap();
    harness.cache.build_ended(id).await.unwrap();
    let ended = harness.get(&location).await.ok(200);
    assert_eq!(ended["state"], "succeeded");
    assert!(
        ended["generation"].is_string() && ended["ended_at"].is_string(),
        "{ended}"
    );
    let builds = harness.get("/v1/builds").await.ok(200);
    assert!(
        builds["builds"].as_array().unwrap().contains(&ended),
        "{builds}"
    );
}

#[tokio::test]
async fn a_rebuild_can_be_waited_for() {
    let harness = Harness::start().await;
    let path = "/v1/templates/default/rebuild?wait=true";
    assert_eq!(
        harness.call(Method::POST, path).await.ok(200)["state"],
        "succeeded"
    );
    harness.factory.builds_fail.store(true, Ordering::SeqCst);
    let failed = harness.call(Method::POST, path).await.ok(200);
    assert_eq!(failed["state"], "failed");
    assert!(
        failed["error"].as_str().unwrap().contains("did not answer"),
        "{failed}"
    );
    harness.get("/readyz").await.ok(200);

    harness
        .call(Method::POST, "/v1/templates/nope/rebuild")
        .await
        .problem(404, "unknown_template");
    harness
        .call(Method::POST, "/v1/templates/default/rebuild?wait=maybe")
        .await
        .problem(400, "invalid_request");
    harness
        .get("/v1/builds/nope")
        .await
        .problem(404, "unknown_build");
}

#[tokio::test]
async fn a_pool_shows_its_clones_and_can_be_resized() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    harness
        .until("the pool is full again", || {
            harness.cache.pool("default").unwrap().ready == 2
        })
        .await;
    let pool = harness.get("/v1/pools/default").await.ok(200);
    assert_eq!(
        harness.get("/v1/pools").await.ok(200)["pools"][0]["template"],
        "default"
    );
    for (field, value) in [
        ("target", 2),
        ("max", 16),
        ("ready", 2),
        ("launching", 0),
        ("leased", 1),
        ("releasing", 0),
        ("waiters", 0),
        ("hits", 1),
    ] {
        assert_eq!(pool[field], value, "{field}");
    }
    assert_eq!(pool["degraded"], json!(null));
    let leased = pool["clones"]
        .as_array()
        .unwrap()
        .iter()
        .find(|clone| clone["id"] == *id)
        .unwrap()
        .clone();
    assert_eq!(leased["state"], "leased");
    assert!(
        leased["age_s"].is_f64() && leased["generation"].is_string(),
        "{leased}"
    );

    let resize = async |body| {
        harness
            .call_with(Method::PATCH, "/v1/pools/default", body)
            .await
    };
    assert_eq!(resize(json!({"target": 3})).await.ok(200)["target"], 3);
    let both = resize(json!({"target": 1, "max": 4})).await.ok(200);
    assert_eq!((&both["target"], &both["max"]), (&json!(1), &json!(4)));
    resize(json!({"target": 5}))
        .await
        .problem(422, "not_possible");
    for body in [
        json!({"target": -1}),
        json!({"target": 1.5}),
        json!({"target": "2"}),
        json!({"max": 1e20}),
    ] {
        resize(body).await.problem(400, "invalid_request");
    }
    let unknown = harness
        .call_with(Method::PATCH, "/v1/pools/nope", json!({"target": 1}))
        .await;
    unknown.problem(404, "unknown_template");
    harness
        .get("/v1/pools/nope")
        .await
        .problem(404, "unknown_template");
}

#[tokio::test]
async fn readiness_comes_when_the_template_is_built_and_the_pool_is_filled() {
    let factory = FakeFactory::new();
    factory.on_disk.store(false, Ordering::SeqCst);
    factory.builds.send_replace(false);
    let harness = Harness::start_with(factory, vec![plan()]);
    let is_not_ready = async || {
        let reply = harness.get("/readyz").await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.header("content-type"), "application/json");
        let body = reply.json();
        assert_eq!(body["ready"], false);
        assert!(!body["reasons"].as_array().unwrap().is_empty());
    };
    is_not_ready().await;
    harness.get("/healthz").await.ok(200);
    harness.factory.launches.send_replace(false);
    harness.factory.builds.send_replace(true);
    harness
        .until("the template is built", || {
            harness.cache.template("default").unwrap().current.is_some()
        })
        .await;
    is_not_ready().await;
    harness.factory.launches.send_replace(true);
    harness.until_ready().await;
    assert_eq!(
        harness.get("/readyz").await.ok(200),
        json!({"ready": true, "reasons": []})
    );
}
