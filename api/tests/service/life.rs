//! Starts and stops, expected and not.

use http::Method;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::service::{Place, id};

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_starts_again_and_leaves_nothing() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 4")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let built = service.get("/v1/templates/default").await?["current"].clone();

    second_services_are_refused(&place).await?;
    // A leased sandbox ends with the service (a later version keeps it).
    service.sandbox().await?;
    service.stop().await?;

    // The generation is taken up again: no build.
    let mut service = place.start().await?;
    service.ready().await?;
    assert_eq!(
        service.get("/v1/templates/default").await?["current"],
        built
    );
    assert_eq!(service.get("/v1/builds").await?["builds"], json!([]));
    second_signal_ends_at_once(service).await?;
    place.nothing_left()?;

    kill_9_leaves_machines_and_the_next_start_ends_them(&place, &built).await?;

    // Another configuration: rebuilt, and the log says in what it differs.
    place.configure("", "kernel_params = \"loglevel=3\"", "target = 1")?;
    let mut service = place.start().await?;
    service
        .until("a rebuild", |socket| {
            let built = built.clone();
            async move {
                let path = "/v1/templates/default";
                let (_, template) =
                    crate::service::call(socket.as_ref(), Method::GET, path, None).await?;
                Ok(template["current"].is_string() && template["current"] != built)
            }
        })
        .await?;
    assert!(service.log().contains("kernel_params"), "{}", service.log());
    service.stop().await?;
    place.close().await
}

async fn second_services_are_refused(place: &Place) -> anyhow::Result<()> {
    let second = place.run_configured(&["serve"]).await?;
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("is used by another vmint service"), "{text}");
    let clean = place.run_configured(&["clean"]).await?;
    assert_eq!(
        clean.status.code(),
        Some(1),
        "clean refuses while a service runs"
    );
    assert_eq!(place.machines()?.len(), 1, "nothing was touched");
    Ok(())
}

/// While a command runs, the first signal waits for it; the second does not.
async fn second_signal_ends_at_once(
    mut service: crate::service::Service<'_>,
) -> anyhow::Result<()> {
    let sandbox = service.sandbox().await?;
    let socket = service.place.run_dir().join("api.sock");
    let path = format!("/v1/sandboxes/{}/exec", id(&sandbox));
    let running = tokio::spawn(async move {
        let body = json!({"argv": ["sleep", "600"], "timeout_ms": 600_000});
        crate::service::call(&socket, Method::POST, &path, Some(body)).await
    });
    let sandbox_id = id(&sandbox);
    service
        .until("the command to run", |socket| {
            let path = format!("/v1/sandboxes/{sandbox_id}/exec");
            async move {
                let body = json!({"argv": ["sh", "-c", "ps | grep -q '[s]leep 600'"]});
                let (_, end) =
                    crate::service::call(socket.as_ref(), Method::POST, &path, Some(body)).await?;
                Ok(end["exit_code"] == 0)
            }
        })
        .await?;
    service.signal(Signal::SIGTERM)?;
    let log_says = "a second signal ends it at once";
    while !service.log().contains(log_says) {
        tokio::task::yield_now().await;
    }
    service.signal(Signal::SIGTERM)?;
    let end = service.ended().await?;
    assert!(
        matches!(end, Ok(143) | Err(15)),
        "{end:?}\n{}",
        service.log()
    );
    drop(running.await);
    Ok(())
}

async fn kill_9_leaves_machines_and_the_next_start_ends_them(
    place: &Place,
    built: &serde_json::Value,
) -> anyhow::Result<()> {
    let mut service = place.start().await?;
    service.ready().await?;
    service.sandbox().await?;
    let (status, short) = service
        .checkout(json!({"ttl_s": 8, "wait_ms": 60_000}))
        .await?;
    assert_eq!(status, 201, "{short}");
    service.quiet(1).await?;
    service.signal(Signal::SIGKILL)?;
    assert_eq!(service.ended().await?, Err(9));
    let orphans = place.machines()?;
    assert_eq!(orphans.len(), 3, "machines do not end with the service");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while place.machines()?.len() > 2 {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "a lease has no end");
        tokio::task::yield_now().await;
    }
    let pid = short["pid"].as_i64();
    let machines = place.machines()?;
    assert!(
        machines.iter().all(|&other| Some(i64::from(other)) != pid),
        "the sandbox whose lease has run out has ended, and no other"
    );

    let mut service = place.start().await?;
    service.ready().await?;
    service.quiet(1).await?;
    let machines = place.machines()?;
    assert!(
        orphans.iter().all(|pid| !machines.contains(pid)),
        "the orphans are ended"
    );
    assert_eq!((machines.len(), place.directories()?.len()), (1, 1));
    assert_eq!(
        service.get("/v1/templates/default").await?["current"],
        *built,
        "the generation is still good"
    );
    service.stop().await
}
