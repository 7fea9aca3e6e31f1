//! Devices of the host in a checkout.

use std::path::PathBuf;

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use vmint_api::http::Origin;

use crate::support::Harness;

/// A folder with an empty disk in it.
fn disk() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, "").unwrap();
    (folder, path)
}

#[tokio::test]
async fn a_sandbox_shows_the_devices_that_it_was_given() {
    let (harness, (_folder, path)) = (Harness::start().await, disk());
    let body = json!({"nics": [{"user": true}], "disks": [{"path": path, "format": "raw", "read_only": true}]});
    let sandbox = harness.post("/v1/sandboxes", body).await.ok(201);
    let (nic, disk) = (&sandbox["nics"][0], &sandbox["disks"][0]);
    assert_eq!((&nic["user"], &nic["name"]), (&json!(true), &json!("eth0")));
    assert_eq!(nic["mac"].as_str().unwrap().len(), 17);
    assert!(nic.get("tap").is_none());
    let id = sandbox["id"].as_str().unwrap();
    let expected = json!({"serial": format!("{id}-0"), "path": path, "format": "raw", "read_only": true, "name": "vd0"});
    assert_eq!(disk, &expected);
    let shown = harness.get(&format!("/v1/sandboxes/{id}")).await.ok(200);
    assert_eq!(shown["nics"], sandbox["nics"]);

    let plain = harness.call(Method::POST, "/v1/sandboxes").await.ok(201);
    assert_eq!((&plain["nics"], &plain["disks"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn a_disk_that_somebody_writes_to_is_a_409_until_it_is_released() {
    let (harness, (_folder, path)) = (Harness::start().await, disk());
    let body = || json!({"disks": [{"path": path}]});
    let first = harness.post("/v1/sandboxes", body()).await.ok(201);
    let detail = harness
        .post("/v1/sandboxes", body())
        .await
        .problem(409, "conflict");
    assert!(detail.contains("in use"), "{detail}");
    let id = first["id"].as_str().unwrap();
    let released = harness
        .call(Method::DELETE, &format!("/v1/sandboxes/{id}"))
        .await;
    assert_eq!(released.status, 204);
    harness.post("/v1/sandboxes", body()).await.ok(201);
}

#[tokio::test]
async fn what_is_no_device_is_a_400_and_what_cannot_be_had_a_422() {
    let (harness, (folder, path)) = (Harness::start().await, disk());
    for body in [
        json!({"nics": [{}]}),
        json!({"nics": [{"user": false}]}),
        json!({"nics": [{"tap": "a", "user": true}]}),
        json!({"nics": [{"tap": "a", "mac": "b"}]}),
        json!({"nics": ["tap0"]}),
        json!({"disks": [{}]}),
        json!({"disks": [{"path": "relative"}]}),
        json!({"disks": [{"path": ""}]}),
        json!({"disks": [{"path": "/a\0b"}]}),
        json!({"disks": [{"path": path, "format": "vmdk"}]}),
    ] {
        let reply = harness.post("/v1/sandboxes", body.clone()).await;
        reply.problem(400, "invalid_request");
    }
    let user = json!({"user": true});
    for (body, reason) in [
        (json!({"nics": vec![user; 7]}), "limit is 6"),
        (
            json!({"nics": [{"tap": "vmint-none0"}]}),
            "no such interface",
        ),
        (
            json!({"disks": [{"path": folder.path()}]}),
            "neither a regular file",
        ),
        (json!({"disks": [{"path": "/nope/x"}]}), "/nope/x"),
        (
            json!({"disks": [{"path": path, "format": "qcow2"}]}),
            "no qcow2 image",
        ),
    ] {
        let detail = harness
            .post("/v1/sandboxes", body)
            .await
            .problem(422, "not_possible");
        assert!(detail.contains(reason), "{detail}");
    }
    assert_eq!(harness.cache.pool("default").unwrap().hits, 0);
}

#[tokio::test]
async fn over_tcp_nothing_of_the_host_can_be_named() {
    let (harness, (_folder, path)) = (Harness::start().await, disk());
    let over_tcp = |body: Value| {
        Request::post("/v1/sandboxes")
            .extension(Origin::Tcp)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap()
    };
    for body in [
        json!({"disks": [{"path": path}]}),
        json!({"nics": [{"user": true}]}),
        json!({"nics": [{"tap": "tap0"}]}),
    ] {
        let reply = harness.send(over_tcp(body)).await;
        let detail = reply.problem(422, "not_possible");
        assert!(detail.contains("Unix socket"), "{detail}");
    }
    harness
        .send(over_tcp(json!({"nics": [], "disks": null})))
        .await
        .ok(201);
}
