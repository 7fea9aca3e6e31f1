//! Sandboxes outlive the service: killed, stopped, started again.

use http::Method;
use serde_json::{Value, json};

use crate::service::{LONG, Place, Service, call, eventually, id};

/// A checkout that says a lot.
fn checkout() -> Value {
    json!({
        "wait_ms": 60_000, "ttl_s": 600, "hostname": "job-17", "env": {"TOKEN": "hush"}, "metadata": {"job": "17"},
    })
}

async fn env_of(service: &Service<'_>, sandbox: &str) -> anyhow::Result<String> {
    let (status, end) = service.exec(sandbox, "echo $TOKEN; hostname").await?;
    anyhow::ensure!(status == 200, "{status}: {end}");
    Ok(end["stdout"].as_str().unwrap_or_default().to_owned())
}

/// What of a sandbox must be the same before and after.
async fn seen(service: &Service<'_>, sandbox: &str) -> anyhow::Result<Value> {
    let mut sandbox = service.get(&format!("/v1/sandboxes/{sandbox}")).await?;
    // What is written down of it is a moment older than what was answered.
    sandbox["checkout_ms"].take();
    // It grows by itself.
    sandbox["last_seen_ms"].take();
    Ok(sandbox)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_loses_nothing() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 4")?;
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    let (status, kept) = service.checkout(checkout()).await?;
    assert_eq!(status, 201, "{kept}");
    let short = json!({"ttl_s": 8, "wait_ms": 60_000});
    let (status, short) = service.checkout(short).await?;
    assert_eq!(status, 201, "{short}");
    service.quiet(1).await?;
    let before = seen(&service, &id(&kept)).await?;
    let machines = place.machines()?;
    service.kill().await?;

    // While nobody is there, a lease that runs out ends its sandbox, and no other.
    assert_eq!(place.machines()?.len(), 3, "machines do not end with it");
    eventually("the end of a lease", LONG, async || {
        Ok(place.machines()?.len() <= 2)
    })
    .await?;
    let left = place.machines()?;
    assert!(
        left.iter()
            .all(|pid| Some(i64::from(*pid)) != short["pid"].as_i64())
    );

    let mut service = place.start_mortal().await?;
    service.ready().await?;
    service.quiet(1).await?;
    assert_eq!(
        place.machines()?,
        left,
        "the ready clone and the sandbox were taken up"
    );
    assert!(left.iter().all(|pid| machines.contains(pid)));
    assert_eq!(
        seen(&service, &id(&kept)).await?,
        before,
        "as if nothing had happened"
    );
    assert_eq!(env_of(&service, &id(&kept)).await?, "hush\njob-17\n");
    let short = format!("/v1/sandboxes/{}", id(&short));
    assert_eq!(service.call(Method::GET, &short, None).await?.0, 404);
    assert_eq!(place.directories()?.len(), 2);
    assert_eq!(service.get("/v1/builds").await?["builds"], json!([]));

    // It is released like any other, and a ready clone of before is handed out.
    assert_eq!(service.release(&id(&kept)).await?, 204);
    let next = service.sandbox().await?;
    assert!(
        machines
            .iter()
            .any(|pid| Some(i64::from(*pid)) == next["pid"].as_i64())
    );
    assert_eq!(env_of(&service, &id(&next)).await?.lines().next(), Some(""));
    assert_eq!(service.release(&id(&next)).await?, 204);

    // And from its first answer on, also to who does not wait.
    service.quiet(1).await?;
    let machines = place.machines()?;
    service.kill().await?;
    let mut service = place.start_mortal().await?;
    let asks = |socket: String| async move {
        let (status, _) = call(socket.as_ref(), Method::GET, "/healthz", None).await?;
        Ok(status == 200)
    };
    service.until("an answer", asks).await?;
    let (status, first) = service.checkout(json!({"on_empty": "fail"})).await?;
    assert_eq!(status, 201, "{first}");
    assert!(
        machines
            .iter()
            .any(|pid| Some(i64::from(*pid)) == first["pid"].as_i64())
    );
    assert_eq!(service.release(&id(&first)).await?, 204);
    service.stop().await?;
    place.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_what_is_leased_and_clean_ends_it() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 4\nstandby = \"paused\"")?;
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    let (status, kept) = service.checkout(checkout()).await?;
    assert_eq!(status, 201, "{kept}");
    let before = seen(&service, &id(&kept)).await?;
    service.leave().await?;
    let left: Vec<_> = place.machines()?.into_iter().map(i64::from).collect();
    assert_eq!(
        Some(left.as_slice()),
        kept["pid"].as_i64().as_ref().map(std::slice::from_ref)
    );

    let mut service = place.start_mortal().await?;
    service.ready().await?;
    assert_eq!(seen(&service, &id(&kept)).await?, before);
    assert_eq!(env_of(&service, &id(&kept)).await?, "hush\njob-17\n");
    service.leave().await?;
    its_generation_is_damaged_meanwhile(&place, &kept).await?;

    assert_eq!(place.machines()?.len(), 1);
    let cleaned = place.run_configured(&["clean"]).await?;
    assert!(cleaned.status.success());
    place.nothing_left()?;
    place.close().await
}

/// A sandbox needs nothing of its generation's files but the memory that it has open: it lives on, and others are made
/// from another generation.
async fn its_generation_is_damaged_meanwhile(place: &Place, kept: &Value) -> anyhow::Result<()> {
    let old = kept["generation"].as_str().unwrap_or_default();
    let state = place
        .template_path()
        .join("default")
        .join(old)
        .join("state");
    let mut bytes = std::fs::read(&state)?;
    bytes[12_345] ^= 1;
    std::fs::remove_file(&state)?;
    std::fs::write(&state, bytes)?;
    let mut service = place.start_mortal().await?;
    service.ready().await?;
    service.quiet(1).await?;
    assert_eq!(env_of(&service, &id(kept)).await?, "hush\njob-17\n");
    let next = service.sandbox().await?;
    assert_ne!(next["generation"], kept["generation"]);
    assert_eq!(service.exec(&id(&next), "true").await?.0, 200);
    assert_eq!(service.release(&id(&next)).await?, 204);
    service.leave().await
}
