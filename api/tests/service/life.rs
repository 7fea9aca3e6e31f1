//! Starts and stops, expected and not.

use http::Method;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::service::{LONG, Place, eventually, id};

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_starts_again_and_leaves_nothing() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 1\nmax = 4")?;
    let mut service = place.start().await?;
    service.ready().await?;
    let built = service.get("/v1/templates/default").await?["current"].clone();

    second_services_are_refused(&place).await?;
    // A leased sandbox ends with a service that drains.
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
    // A machine that was being made was killed with the last breath: the kernel may need a moment.
    eventually("nothing is left", LONG, async || {
        place.nothing_left().map(|()| true)
    })
    .await?;

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
    service.logs("a second signal ends it at once").await?;
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
