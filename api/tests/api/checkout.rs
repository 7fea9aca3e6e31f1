//! Checkouts.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;
use tower::ServiceExt as _;
use vmint_api::http::Origin;

use crate::support::{FakeFactory, Harness, own_peer, plan};

#[tokio::test]
async fn a_checkout_answers_with_everything_about_the_sandbox() {
    let harness = Harness::start().await;
    let body = json!({"template": "default", "ttl_s": 300, "hostname": "job-17", "metadata": {"k": "v"},
        "vcpus": 1, "memory_mib": 256, "wait_ms": 5000, "on_empty": "wait", "env": {}, "files": [], "nics": [], "disks": []});
    let reply = harness.post("/v1/sandboxes", body).await;
    let sandbox = reply.ok(201);
    let id = sandbox["id"].as_str().unwrap();
    assert_eq!(reply.header("location"), format!("/v1/sandboxes/{id}"));
    for (field, value) in [
        ("template", json!("default")),
        ("state", json!("leased")),
        ("source", json!("pool")),
        ("vcpus", json!(1)),
        ("memory_mib", json!(256)),
        ("pid", json!(4242)),
        ("hostname", json!("job-17")),
        ("machine_id", json!(format!("{id:f<32}"))),
        ("metadata", json!({"k": "v"})),
        (
            "sockets",
            json!({"console": "/run/vmint/vm/x/console.sock", "runtime": "/run/vmint/vm/x/runtime.sock"}),
        ),
    ] {
        assert_eq!(sandbox[field], value, "{field}");
    }
    let startup = sandbox["startup_ms"].as_object().unwrap();
    assert_eq!(startup.len(), 8, "{startup:?}");
    assert_eq!(
        (&startup["spawn"], &startup["total"]),
        (&json!(33.25), &json!(80.0))
    );
    assert!(sandbox["checkout_ms"].as_f64().unwrap() >= 0.0);
    let time = |field: &str| {
        sandbox[field]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    let lease = time("expires_at")
        .duration_since(time("leased_at"))
        .as_millis();
    assert!((299_990..=300_010).contains(&lease), "{lease}");
    assert!(time("created_at") <= time("leased_at"));
    assert_eq!(
        harness.get(&format!("/v1/sandboxes/{id}")).await.ok(200)["id"],
        id
    );
}

#[tokio::test]
async fn a_field_that_is_null_is_as_good_as_absent() {
    let harness = Harness::start().await;
    let body = json!({"template": null, "ttl_s": null, "hostname": null, "metadata": null, "vcpus": null,
        "memory_mib": null, "wait_ms": null, "on_empty": null, "env": null, "files": null, "nics": null, "disks": null});
    harness.post("/v1/sandboxes", body).await.ok(201);
}

#[tokio::test]
async fn a_checkout_needs_no_body() {
    let harness = Harness::start().await;
    let form = Request::post("/v1/sandboxes")
        .extension(Origin::Unix)
        .extension(own_peer())
        .header("content-type", "application/x-www-form-urlencoded");
    harness
        .send(form.body(Body::empty()).unwrap())
        .await
        .ok(201);
    harness.call(Method::POST, "/v1/sandboxes").await.ok(201);
    harness.post("/v1/sandboxes", json!({})).await.ok(201);
}

#[tokio::test]
async fn values_that_cannot_be_are_refused() {
    let harness = Harness::start().await;
    for body in [
        json!({"ttl_s": -1}),
        json!({"ttl_s": "5m"}),
        json!({"wait_ms": -1}),
        json!({"on_empty": "explode"}),
        json!({"hostname": "a b"}),
        json!({"hostname": ""}),
        json!({"metadata": {"k": 1}}),
        json!({"vcpus": 1.5}),
        json!({"vcpus": 0}),
        json!({"memory_mib": 0}),
        json!({"template": 1}),
        json!({"files": ["x"]}),
    ] {
        harness
            .post("/v1/sandboxes", body)
            .await
            .problem(400, "invalid_request");
    }
    harness
        .post("/v1/sandboxes", json!({"template": "nope"}))
        .await
        .problem(404, "unknown_template");
}

#[tokio::test]
async fn what_is_not_possible_is_refused_with_its_name() {
    let harness = Harness::start().await;
    for (field, value) in [
        ("vcpus", json!(5)),
        ("memory_mib", json!(2049)),
        ("wait_ms", json!(1e9)),
        ("ttl_s", json!(1e300)),
        ("metadata", json!({"k": "x".repeat(20_000)})),
    ] {
        let detail = harness
            .post("/v1/sandboxes", json!({field: value}))
            .await
            .problem(422, "not_possible");
        assert!(detail.contains(field), "{field}: {detail}");
    }
    for (ttl_s, limit) in [(json!(86_401), "86400"), (json!(0), "86400")] {
        let detail = harness
            .post("/v1/sandboxes", json!({"ttl_s": ttl_s}))
            .await
            .problem(422, "not_possible");
        assert!(detail.contains(limit), "{detail}");
    }
}

#[tokio::test]
async fn a_sandbox_has_at_least_the_size_that_was_asked_for_and_the_answer_says_which() {
    let harness = Harness::start().await;
    for (asked, given) in [
        (json!({"vcpus": 2, "memory_mib": 500}), (2, 512)),
        (json!({"vcpus": 1, "memory_mib": 64}), (1, 256)),
    ] {
        let reply = harness.post("/v1/sandboxes", asked).await;
        let sandbox = reply.ok(201);
        assert_eq!(
            (&sandbox["vcpus"], &sandbox["memory_mib"]),
            (&json!(given.0), &json!(given.1))
        );
        assert!(sandbox.get("vsock_cid").is_none(), "the template has none");
        let id = sandbox["id"].as_str().unwrap();
        let again = harness.get(&format!("/v1/sandboxes/{id}")).await;
        assert_eq!(again.ok(200)["memory_mib"], given.1);
    }
    let detail = harness
        .post("/v1/sandboxes", json!({"vcpus": 5}))
        .await
        .problem(422, "not_possible");
    assert!(detail.contains("limit of 4"), "{detail}");
}

#[tokio::test]
async fn an_empty_pool_is_a_503_after_the_wait_or_at_once() {
    let harness = Harness::start().await;
    harness.factory.launches.send_replace(false);
    let (_first, _second) = (harness.checkout().await, harness.checkout().await);
    harness
        .post("/v1/sandboxes", json!({"on_empty": "fail"}))
        .await
        .problem(503, "pool_empty");
    harness
        .post("/v1/sandboxes", json!({"wait_ms": 20}))
        .await
        .problem(503, "pool_empty");
}

#[tokio::test]
async fn a_full_queue_is_a_429() {
    let mut small = plan();
    small.pool.queue = 1;
    let harness = Harness::start_with(FakeFactory::new(), vec![small]);
    harness.until_ready().await;
    harness.factory.launches.send_replace(false);
    let (_first, _second) = (harness.checkout().await, harness.checkout().await);
    let waits = tokio::spawn(harness.router.clone().oneshot(waiting_checkout()));
    harness
        .until("a checkout waits", || {
            harness.cache.pool("default").unwrap().waiters == 1
        })
        .await;
    harness
        .post("/v1/sandboxes", json!({}))
        .await
        .problem(429, "queue_full");
    harness.factory.launches.send_replace(true);
    assert_eq!(waits.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_costs_no_clone() {
    let harness = Harness::start().await;
    harness.factory.launches.send_replace(false);
    let (_first, _second) = (harness.checkout().await, harness.checkout().await);
    let waits = tokio::spawn(harness.router.clone().oneshot(waiting_checkout()));
    harness
        .until("a checkout waits", || {
            harness.cache.pool("default").unwrap().waiters == 1
        })
        .await;
    waits.abort();
    harness
        .until("nobody waits", || {
            harness.cache.pool("default").unwrap().waiters == 0
        })
        .await;
    harness.factory.launches.send_replace(true);
    harness
        .until("the pool is full again", || {
            harness.cache.pool("default").unwrap().ready == 2
        })
        .await;
    assert_eq!(harness.cache.sandboxes(None).len(), 2);
}

fn waiting_checkout() -> Request<Body> {
    let request = Request::post("/v1/sandboxes")
        .extension(Origin::Unix)
        .extension(own_peer())
        .header("content-type", "application/json");
    request
        .body(Body::from(json!({"wait_ms": 20_000}).to_string()))
        .unwrap()
}

#[tokio::test]
async fn a_guest_that_refuses_its_name_is_a_502() {
    let harness = Harness::start().await;
    harness
        .post("/v1/sandboxes", json!({"hostname": "refused"}))
        .await
        .problem(502, "guest_error");
}

#[tokio::test]
async fn a_template_without_a_generation_is_a_503() {
    let factory = FakeFactory::new();
    factory
        .on_disk
        .store(false, std::sync::atomic::Ordering::SeqCst);
    factory
        .builds_fail
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let harness = Harness::start_with(factory, vec![plan()]);
    harness
        .until("the build failed", || {
            harness
                .cache
                .template("default")
                .unwrap()
                .last_error
                .is_some()
        })
        .await;
    let detail = harness
        .post("/v1/sandboxes", json!({}))
        .await
        .problem(503, "template_unavailable");
    assert!(detail.contains("did not answer"), "{detail}");
    let template = harness.get("/v1/templates/default").await.ok(200);
    assert_eq!(template["state"], "failed");
}

#[tokio::test]
async fn a_service_that_stops_takes_no_checkouts_but_answers() {
    let harness = Harness::start().await;
    let id = harness.checkout().await;
    harness.cache.begin_stop();
    harness.stopping.begin();
    harness
        .post("/v1/sandboxes", json!({}))
        .await
        .problem(503, "shutting_down");
    harness
        .call(Method::POST, "/v1/templates/default/rebuild")
        .await
        .problem(503, "shutting_down");
    let ready = harness.get("/readyz").await;
    assert_eq!(
        (ready.status.as_u16(), ready.json()["ready"].as_bool()),
        (503, Some(false))
    );
    assert!(!ready.json()["reasons"].as_array().unwrap().is_empty());
    harness.get("/healthz").await.ok(200);
    harness
        .post(
            &format!("/v1/sandboxes/{id}/exec"),
            json!({"argv": ["echo", "on"]}),
        )
        .await
        .ok(200);
    harness
        .cache
        .stop(Duration::from_secs(5), vmint_cache::Leased::End)
        .await;
    harness
        .get(&format!("/v1/sandboxes/{id}"))
        .await
        .problem(404, "unknown_sandbox");
}
