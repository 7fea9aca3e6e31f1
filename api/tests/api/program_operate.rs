//! The client commands of an operator: rollback, drain, resume.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::listeners::Listening;
use crate::program::at;

#[tokio::test]
async fn a_rebuild_shows_the_roll_and_a_rollback_goes_back() {
    let service = Listening::start().await;
    let (code, _, err) = at(&service, &["template", "rollback", "default"]).await;
    assert!(code == 1 && err.contains("conflict"), "{err}");
    let (code, out, err) = at(&service, &["template", "rebuild", "default"]).await;
    assert!(code == 0 && out.starts_with("built "), "{out}{err}");
    let (_, out, _) = at(&service, &["pool", "ls", "--json"]).await;
    let pools: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&pools["pools"][0]["updated"], &pools["pools"][0]["roll"]),
        (&json!(2), &json!(null)),
        "it waited for the pool"
    );
    let built = pools["pools"][0]["clones"][0]["generation"].clone();
    let (code, out, err) = at(&service, &["template", "rollback", "default", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let template: Value = serde_json::from_str(&out).unwrap();
    assert_ne!(template["current"], built);
}

#[tokio::test]
async fn a_rebuild_tells_how_its_roll_has_ended_also_in_json() {
    let service = Listening::start().await;
    let rebuild = ["template", "rebuild", "default", "--json"];
    let (code, out, err) = at(&service, &rebuild).await;
    assert_eq!(code, 0, "{err}");
    let good: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(good["state"], "succeeded");
    let roll = &good["last_roll"];
    assert_eq!(
        (&roll["outcome"], &roll["reason"]),
        (&json!("rolled"), &json!(null))
    );
    assert_eq!(roll["to"], good["generation"]);

    let failing = &service.harness.factory.launches_fail;
    failing.store(true, Ordering::SeqCst);
    let (code, out, err) = at(&service, &rebuild).await;
    assert_eq!(code, 1, "{err}");
    let bad: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(bad["state"], "succeeded", "the build itself");
    let roll = &bad["last_roll"];
    assert_eq!(roll["outcome"], "rolled_back");
    assert_eq!(
        (&roll["from"], &roll["to"]),
        (&good["generation"], &bad["generation"])
    );
    let reason = roll["reason"].as_str().unwrap();
    assert!(reason.contains("the guest did not answer"), "{reason}");
    let (code, out, _) = at(&service, &["template", "show", "default"]).await;
    assert_eq!(code, 0);
    assert!(
        out.contains("rolled back from ") && out.contains(reason),
        "{out}"
    );
    let (code, out, _) = at(&service, &["template", "rebuild", "default"]).await;
    assert_eq!(code, 1);
    assert!(
        out.contains(" was given up, and ") && out.contains("did not answer"),
        "{out}"
    );
}

#[tokio::test]
async fn a_pool_is_drained_and_resumed() {
    let service = Listening::start().await;
    let (code, out, err) = at(&service, &["pool", "drain", "default"]).await;
    assert!(code == 0 && out.contains("draining"), "{out}{err}");
    let (code, _, err) = at(&service, &["checkout"]).await;
    assert!(code == 1 && err.contains("draining"), "{err}");
    let (code, out, err) = at(&service, &["pool", "resume", "default"]).await;
    assert!(code == 0 && !out.contains("draining"), "{out}{err}");
    let (code, _, err) = at(&service, &["pool", "drain", "nope"]).await;
    assert!(code == 1 && err.contains("unknown_template"), "{err}");
}

#[tokio::test]
async fn the_service_is_drained_waited_for_and_resumed() {
    let service = Listening::start().await;
    let id = service.harness.checkout().await;
    let (code, out, err) = at(&service, &["drain"]).await;
    assert!(code == 0 && out.contains("draining   yes"), "{out}{err}");
    let waits = async { at(&service, &["drain", "--wait", "--json"]).await };
    let releases = async {
        service
            .harness
            .until("the pool is empty but for the sandbox", || {
                service.harness.cache.draining().releasing == 0
            })
            .await;
        at(&service, &["release", &id]).await
    };
    let ((code, out, err), released) = tokio::join!(waits, releases);
    assert_eq!((code, released.0), (0, 0), "{err}");
    let drain: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&drain["drained"], &drain["leased"]),
        (&json!(true), &json!(0))
    );
    let (code, out, err) = at(&service, &["resume"]).await;
    assert!(code == 0 && out.contains("draining   no"), "{out}{err}");
    let (code, out, err) = at(&service, &["drain", "--exit"]).await;
    assert!(code == 0 && out.contains("exit       yes"), "{out}{err}");
    let (code, _, err) = at(&service, &["resume"]).await;
    assert!(code == 1 && err.contains("conflict"), "{err}");
}
