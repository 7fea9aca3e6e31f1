//! What goes wrong while the service runs.

use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::service::{LONG, Place, Service, call, eventually, id};
use crate::wait::Watched;

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_survived() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "", "target = 2\nmax = 4")?;
    let mut service = place.start().await?;
    service.ready().await?;
    a_ready_clone_is_killed(&mut service).await?;
    a_leased_one_is_killed(&mut service).await?;
    a_client_hangs_up(&mut service).await?;
    requests_that_cannot_be_served(&service).await?;
    the_state_is_damaged(&mut service).await?;
    service.stop().await?;
    place.close().await
}

fn kill_pid(pid: &Value) -> anyhow::Result<()> {
    let pid = i32::try_from(pid.as_i64().unwrap_or_default())?;
    anyhow::ensure!(pid > 1, "no pid");
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

async fn a_ready_clone_is_killed(service: &mut Service<'_>) -> anyhow::Result<()> {
    service.quiet(2).await?;
    let killed = service.place.machines()?;
    let watched: Vec<_> = killed
        .iter()
        .map(|pid| Watched::open(*pid))
        .collect::<anyhow::Result<_>>()?;
    for pid in &killed {
        kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
    }
    // The moment they are gone, before anybody can have been told.
    for process in watched {
        process.ended().await?;
    }
    // Whoever comes now gets a living one, or waits for it.
    let sandbox = service.sandbox().await?;
    let (status, end) = service.exec(&id(&sandbox), "echo alive").await?;
    assert_eq!((status, &end["stdout"]), (200, &json!("alive\n")));
    assert_eq!(service.release(&id(&sandbox)).await?, 204);
    service.quiet(2).await
}

async fn a_leased_one_is_killed(service: &mut Service<'_>) -> anyhow::Result<()> {
    let sandbox = service.sandbox().await?;
    let sandbox_id = id(&sandbox);
    let (outcome, killed) = tokio::join!(service.exec(&sandbox_id, "sleep 1000"), async {
        kill_pid(&sandbox["pid"])
    });
    killed?;
    let (status, error) = outcome?;
    assert!(status == 404 || status == 502, "{status}: {error}");
    let path = format!("/v1/sandboxes/{sandbox_id}");
    service
        .until("the end of a dead sandbox", |socket| {
            let path = path.clone();
            async move { Ok(call(socket.as_ref(), Method::GET, &path, None).await?.0 == 404) }
        })
        .await?;
    assert_eq!(service.release(&sandbox_id).await?, 404);
    service.quiet(2).await?;
    assert_eq!(service.place.directories()?.len(), 2);
    Ok(())
}

async fn a_client_hangs_up(service: &mut Service<'_>) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(id(&service.sandbox().await?));
    }
    // The pool is at its max: these wait, and go away.
    let waiting = (0..5).map(|_| service.checkout(json!({"wait_ms": 60_000})));
    let all_wait = eventually("five waiters", LONG, async || {
        Ok(service.pool().await?["waiters"] == 5)
    });
    tokio::select! {
        answers = futures::future::join_all(waiting) => anyhow::bail!("nobody waits: {answers:?}"),
        all_wait = all_wait => all_wait?,
    }
    service
        .until("no waiters", |socket| async move {
            Ok(
                call(socket.as_ref(), Method::GET, "/v1/pools/default", None)
                    .await?
                    .1["waiters"]
                    == 0,
            )
        })
        .await?;
    let (status, error) = service.checkout(json!({"on_empty": "fail"})).await?;
    assert_eq!((status, &error["code"]), (503, &json!("pool_empty")));
    for id in held {
        assert_eq!(service.release(&id).await?, 204);
    }
    service.quiet(2).await?;
    assert_eq!(service.place.machines()?.len(), 2, "no clone is lost");
    Ok(())
}

async fn requests_that_cannot_be_served(service: &Service<'_>) -> anyhow::Result<()> {
    for (body, status, code) in [
        (json!({"template": "nothing"}), 404, "unknown_template"),
        (json!({"colour": "red"}), 400, "invalid_request"),
        (json!({"ttl_s": 1e9}), 422, "not_possible"),
        (json!({"memory_mib": 4096}), 422, "not_possible"),
        (
            json!({"disks": [{"path": "/nonexistent"}]}),
            422,
            "not_possible",
        ),
    ] {
        let (got, error) = service.checkout(body.clone()).await?;
        assert_eq!(
            (got, error["code"].as_str()),
            (status, Some(code)),
            "{body}: {error}"
        );
    }
    let sandbox = service.sandbox().await?;
    let path = format!("/v1/sandboxes/{}/exec", id(&sandbox));
    for (body, status, code) in [
        (json!({"argv": ["no-such-program"]}), 422, "exec_failed"),
        (json!({"argv": []}), 400, "invalid_request"),
        (
            json!({"argv": ["sleep", "100"], "timeout_ms": 500}),
            504,
            "timeout",
        ),
    ] {
        let (got, error) = service
            .call(Method::POST, &path, Some(body.clone()))
            .await?;
        assert_eq!(
            (got, error["code"].as_str()),
            (status, Some(code)),
            "{body}: {error}"
        );
    }
    let (_, end) = service
        .exec(&id(&sandbox), "ps | grep -c '[s]leep 100'")
        .await?;
    assert_eq!(
        end["stdout"], "0\n",
        "what was too slow is dead in the guest"
    );
    assert_eq!(service.release(&id(&sandbox)).await?, 204);
    Ok(())
}

/// One bit of the device state: clones fail, the pool says so, the template is rebuilt, the service lives.
async fn the_state_is_damaged(service: &mut Service<'_>) -> anyhow::Result<()> {
    service.quiet(2).await?;
    let before = service.get("/v1/templates/default").await?;
    let current = before["current"].as_str().unwrap_or_default().to_owned();
    let state = service
        .place
        .template_path()
        .join("default")
        .join(&current)
        .join("state");
    let mut bytes = std::fs::read(&state)?;
    bytes[12_345] ^= 1;
    std::fs::remove_file(&state)?;
    std::fs::write(&state, bytes)?;
    // A clone that is ready already is as good as before.
    let sandbox = service.sandbox().await?;
    assert_eq!(sandbox["generation"], json!(current));
    assert_eq!(service.exec(&id(&sandbox), "true").await?.0, 200);
    service
        .until("a rebuild", |socket| {
            let old = json!(current);
            async move {
                let (_, template) =
                    call(socket.as_ref(), Method::GET, "/v1/templates/default", None).await?;
                Ok(template["state"] == "ready" && template["current"] != old)
            }
        })
        .await?;
    assert!(
        service.log().contains("load") && service.log().contains("digest"),
        "the log names the phase and the cause"
    );
    assert_eq!(service.release(&id(&sandbox)).await?, 204);
    service.quiet(2).await?;
    let metrics = service.get("/metrics").await?;
    let failures = metrics.as_str().unwrap_or_default().lines().find(|line| {
        line.starts_with("vmint_clone_failures_total") && line.contains("phase=\"load\"")
    });
    assert!(
        failures.is_some_and(|line| !line.ends_with(" 0")),
        "{failures:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_cannot_be_built_does_not_end_the_service() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure(
        "",
        "kernel_params = \"rdinit=/bin/sh\"\nready_timeout = \"10s\"",
        "target = 1",
    )?;
    let mut service = place.start().await?;
    service
        .until("a failed build", |socket| async move {
            let (_, template) =
                call(socket.as_ref(), Method::GET, "/v1/templates/default", None).await?;
            Ok(template["state"] == "failed")
        })
        .await?;
    let (status, body) = service.call(Method::GET, "/readyz", None).await?;
    assert_eq!(status, 503);
    assert!(
        body["reasons"].to_string().contains("did not answer"),
        "{body}"
    );
    let (status, error) = service.checkout(json!({})).await?;
    assert_eq!(
        (status, &error["code"]),
        (503, &json!("template_unavailable"))
    );
    service.get("/healthz").await?;
    service.stop().await?;
    place.close().await
}
