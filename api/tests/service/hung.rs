//! Hypervisors that are stopped: ready ones are never handed out, and a leased one is shown, told and ended.

use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::time::timeout;

use crate::events::events;
use crate::service::{LONG, Place, Service, call, id};

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_noticed() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure("", "guest_timeout = \"2s\"", "target = 2\nmax = 4")?;
    let mut service = place.start().await?;
    service.ready().await?;
    ready_clones_are_stopped(&mut service).await?;
    a_leased_one_is_stopped(&mut service).await?;
    service.stop().await?;
    place.close().await
}

async fn ready_clones_are_stopped(service: &mut Service<'_>) -> anyhow::Result<()> {
    service.quiet(2).await?;
    let stopped = service.place.machines()?;
    for pid in &stopped {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP)?;
    }
    // At once, before any look at them: each checkout gets a clone that works.
    for _ in 0..3 {
        let sandbox = service.sandbox().await?;
        let pid = sandbox["pid"].as_i64().unwrap_or_default();
        assert!(
            stopped.iter().all(|stopped| i64::from(*stopped) != pid),
            "a stopped clone was handed out"
        );
        let (status, end) = service.exec(&id(&sandbox), "echo alive").await?;
        assert_eq!((status, &end["stdout"]), (200, &json!("alive\n")));
        assert_eq!(service.release(&id(&sandbox)).await?, 204);
    }
    service.quiet(2).await?;
    // Nobody asks for this one: it is looked at.
    let unused = service.place.machines()?[0];
    kill(Pid::from_raw(unused), Signal::SIGSTOP)?;
    let place = service.place;
    service
        .until(
            "the end of an unused clone that is stopped",
            |_| async move { Ok(!place.machines()?.contains(&unused)) },
        )
        .await?;
    service.quiet(2).await
}

async fn a_leased_one_is_stopped(service: &mut Service<'_>) -> anyhow::Result<()> {
    let sandbox = service.sandbox().await?;
    let sandbox_id = id(&sandbox);
    let path = format!("/v1/sandboxes/{sandbox_id}");
    let seen = service.get(&path).await?;
    assert_eq!(seen["unresponsive"], json!(false));
    assert!(seen["last_seen_ms"].is_number(), "{seen}");

    let pid = i32::try_from(sandbox["pid"].as_i64().unwrap_or_default())?;
    anyhow::ensure!(pid > 1, "no pid");
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    let told = timeout(LONG, events(service, "sandbox_unresponsive", 1)).await??;
    assert_eq!(told[0]["sandbox"], json!(sandbox_id));
    assert_eq!(told[0]["ends_in_s"], json!(2.0));
    let seen = service.get(&path).await?;
    assert_eq!(seen["unresponsive"], json!(true), "{seen}");
    let pool = service.pool().await?;
    assert_eq!(pool["unresponsive"], json!(1), "{pool}");

    service
        .until("the end of a sandbox that does not answer", |socket| {
            let path = path.clone();
            async move { Ok(call(socket.as_ref(), Method::GET, &path, None).await?.0 == 404) }
        })
        .await?;
    let released = timeout(LONG, events(service, "release", 4)).await??;
    let reason = released[3]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("unresponsive"), "{released:?}");
    service.quiet(2).await
}
